"""The steps of a request, which explanations list in their order."""

import enum


class Step(enum.Enum):
    """One check of a request. The value is its name for staff.

    `Strategy.steps` has those that `verify` makes, in their order; the others are steps of AGS.
    """

    ADDRESS_LIMIT = "limit of the client address"
    REQUEST = "form of the request"
    CLIENT = "credentials of the resource server"
    TENANT = "tenant"
    SERVICE = "service"
    PARAMETERS = "parameters"
    SIGNING_KEY = "signing key of the tenant"
    PASSWORD_LIMIT = "limit of wrong passwords"

    # Of strategies
    UPSTREAM = "server of the operator"
    FORM = "form of the token"
    KEY = "key (kid)"
    ALGORITHM = "algorithm"
    KEY_STATE = "state of the key"
    SIGNATURE = "signature"
    PAYLOAD = "payload of the token"
    CREDENTIALS = "credentials"
    IDENTITY = "account ID"
    TYPE = "type of the token"
    ISSUER = "issuer"
    AUDIENCE = "audience"
    TIMES = "times of the token"
    NONCE = "nonce"
    CLAIMS = "other claims"
    REPLAY = "replay (jti)"
    ACCOUNT = "status of the account"

    ONE_ACCOUNT = "one account"
    ACCOUNT_LIMIT = "limit of the account"
    TOKEN_KNOWN = "token known"
    TOKEN_UNUSED = "token unused"
    TOKEN_NOT_REVOKED = "token not revoked"
    TOKEN_NOT_EXPIRED = "token not expired"
    SIGN_ON = "sign-on not ended"
    DEVICE = "device"
    REFRESH_LIMIT = "limit of refreshes"
    STAFF = "login and permissions"
    AVAILABILITY = "availability of AGS"
