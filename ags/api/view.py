"""The base of the API's views."""

from rest_framework.views import APIView


class GateView(APIView):
    """Answers the methods that it names in `http_method_names`, and no other."""

    @property
    def default_response_headers(self) -> dict[str, str]:
        """Nothing beside what the answer needs."""
        return {}
