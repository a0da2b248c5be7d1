"""A browser of staff that runs no scripts."""

from __future__ import annotations

from http.cookiejar import CookieJar
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, ProxyHandler, build_opener

from tests.support.waiting import PATIENCE


class StaffClient:
    """Keeps cookies, sends the CSRF token with each form, and follows redirects."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._cookies = CookieJar()
        self._opener = build_opener(ProxyHandler({}), HTTPCookieProcessor(self._cookies))

    def log_in(self, username: str, password: str) -> tuple[int, str]:
        """Send the form of the login page; return status and page, as `get` and `post` do."""
        self.get("/admin/login/")
        return self.post("/admin/login/?next=/admin/", username=username, password=password)

    def get(self, path: str) -> tuple[int, str]:
        """GET."""
        return self._request(path, None)

    def post(self, path: str, **fields: str) -> tuple[int, str]:
        """POST a form."""
        token = next(cookie.value for cookie in self._cookies if cookie.name == "csrftoken")
        return self._request(path, {"csrfmiddlewaretoken": token or "", **fields})

    def _request(self, path: str, form: dict[str, str] | None) -> tuple[int, str]:
        data = None if form is None else urlencode(form).encode()
        try:
            with self._opener.open(self._url + path, data, PATIENCE) as response:
                refused = "/admin/login/" in response.url and not path.startswith("/admin/login/")
                assert not refused, f"not logged in at {path}"
                return response.status, response.read().decode()
        except HTTPError as error:
            with error:
                return error.code, error.read().decode()
