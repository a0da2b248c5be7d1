"""The table of the reason codes of the log: failed step, side at fault, refusal and remedy."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from providers.contract import Step


class Side(enum.Enum):
    """Who can correct the cause of a refusal. The value is its name for staff."""

    CALLER = "caller"
    HEAD_END = "head-end"
    CLIENT_APP = "client app"
    RESOURCE_SERVER = "resource server"
    SUBSCRIBER = "subscriber"
    CONFIGURATION = "configuration of the tenant in AGS"
    UPSTREAM = "server of the operator"
    AGS = "AGS, or who runs it"
    STAFF = "staff"


@dataclass(frozen=True, slots=True)
class Reason:
    """`details` replace `refused`: the first one whose placeholders are all known.

    A placeholder is the name of a fact, `kid`, or `time`: the time in the claim that is refused.
    """

    step: Step
    side: Side
    refused: str
    remedy: str
    details: tuple[str, ...] = ()


CALLER, CONFIGURATION = Side.CALLER, Side.CONFIGURATION

REASONS: Mapping[str, Reason] = {
    # The credentials of a service
    "malformed": Reason(
        Step.FORM,
        CALLER,
        "The value is not a token that AGS can read.",
        "Send the token unchanged: look for a line break, quotes, or = at the end of a part, and for kid "
        "and typ in its header.",
        ("The value is not a token that AGS can read: {problem}.",),
    ),
    "header_member_forbidden": Reason(
        Step.FORM,
        CALLER,
        "The header of the token contains crit or b64.",
        "Leave them out of the header of the token.",
        ("The header of the token contains {members}.",),
    ),
    "key_unknown": Reason(
        Step.KEY,
        CALLER,
        "The service has no key with the key ID (kid) of the token.",
        "Compare the kid with the keys of the tenant in the admin, or with the key set of the service: the "
        "signer must use one of these keys, or its key must be added. A service verifies with shared secrets "
        "or with public keys, not with both.",
        ("The service has no key with the key ID (kid) {kid}.",),
    ),
    "key_not_in_force": Reason(
        Step.KEY_STATE,
        CONFIGURATION,
        "The key of the token is staged or revoked, or the time is outside its validity period.",
        "Correct the state or the dates of the key in the admin; a revoked key stays revoked, so add another "
        "one.",
        (
            "The key {kid} is not in force: its Not before is {not_before}, and its Not after {not_after}.",
            "The key {kid} is not in force: its state, or its Not before, which is {not_before}.",
            "The key {kid} is not in force: its state, or its Not after, which is {not_after}.",
            "The key {kid} is staged or revoked, or the time is outside its validity period.",
        ),
    ),
    "key_unreadable": Reason(
        Step.KEY_STATE,
        Side.AGS,
        "AGS cannot decrypt the key of the token.",
        "Put the encryption key under which it was stored back into AGS_ENCRYPTION_KEYS, and restart.",
        ("AGS cannot decrypt the key {kid}.",),
    ),
    "algorithm_mismatch": Reason(
        Step.ALGORITHM,
        CALLER,
        "The algorithm in the header of the token is not the algorithm of the key.",
        "Sign with the algorithm of the key.",
        ("The header of the token says {alg}, and the key {kid} is for {key_alg}.",),
    ),
    "signature_invalid": Reason(
        Step.SIGNATURE,
        CALLER,
        "The signature of the token does not match the key: the signer has another secret or private key, or "
        "the token was changed in transit.",
        "Compare the form of the secret on both sides (base64 of a secret is not the secret, and white space "
        "around it counts), or enter a new key.",
        (
            "The signature of the token does not match the key {kid}: the signer has another secret or "
            "private key, or the token was changed in transit.",
        ),
    ),
    "credential_unknown": Reason(
        Step.CREDENTIALS,
        Side.SUBSCRIBER,
        "The username is unknown, or the password is wrong.",
        "The subscriber types them again; if nobody can sign on, check the configuration of the service.",
    ),
    "token_inactive": Reason(
        Step.CREDENTIALS,
        CALLER,
        "The server of the operator says that the access token is not active.",
        "Get a new access token from that server.",
    ),
    "identity_invalid": Reason(
        Step.IDENTITY,
        Side.UPSTREAM,
        "The server of the operator returned an account ID that AGS cannot use.",
        "Correct the account ID there, or the setting of the service that names the attribute or claim.",
        ("The server of the operator returned no account ID that AGS can use in {name}.",),
    ),
    "payload_malformed": Reason(
        Step.PAYLOAD,
        CALLER,
        "The payload of the token is not a strict JSON object.",
        "Send a JSON object as payload, without duplicate members and NaN.",
        ("The payload of the token is not a strict JSON object: {problem}.",),
    ),
    "type_mismatch": Reason(
        Step.TYPE,
        CALLER,
        "The token is of another type than the service requires.",
        "Send the right kind of token: compare its type with the page of the provider.",
        (
            "The claim {name} of the token is not {expected}.",
            "The claim {name} is that of another type of token than the service requires.",
        ),
    ),
    "issuer_mismatch": Reason(
        Step.ISSUER,
        CALLER,
        "The token was issued by another issuer than the service requires.",
        "Correct iss of the token, or the issuer in the settings of the service: often they differ in a / at "
        "the end.",
        ("The token was not issued by {expected}.",),
    ),
    "audience_mismatch": Reason(
        Step.AUDIENCE,
        CALLER,
        "The token is for another audience than the service requires.",
        "Correct aud of the token, or the audience in the settings of the service.",
        (
            "The token is for the audience {audience}, and the service requires {expected}.",
            "The token is for no audience, and the service requires {expected}.",
        ),
    ),
    "authorized_party_mismatch": Reason(
        Step.AUDIENCE,
        CALLER,
        "The ID token was issued to another client than the service trusts.",
        "Use an ID token of the client in the settings of the service, or add its client to the trusted "
        "clients.",
    ),
    "nonce_mismatch": Reason(
        Step.NONCE,
        CALLER,
        "The nonce of the ID token is not the nonce of the request.",
        "Send the nonce of this sign-on with the ID token.",
    ),
    "claim_missing": Reason(
        Step.CLAIMS,
        CALLER,
        "The token lacks a claim that the service requires.",
        "Add the claim to the token.",
        ("The token lacks the claim {name}.",),
    ),
    "claim_invalid": Reason(
        Step.CLAIMS,
        CALLER,
        "A claim of the token has an invalid value.",
        "Correct the type or the value of the claim: times are numbers, and names and IDs have 1 to 255 "
        "characters without control characters.",
        (
            "The claim {name} of the token has a value that the service does not accept (type: {type}).",
            "The claim {name} of the token has an invalid value.",
        ),
    ),
    "claim_mismatch": Reason(
        Step.CLAIMS,
        CALLER,
        "A claim of the token does not have the value that the service requires.",
        "Correct the claim, or the required value in the settings of the service.",
        ("The claim {name} of the token does not have the value that the service requires.",),
    ),
    "token_expired": Reason(
        Step.TIMES,
        CALLER,
        "The token has expired.",
        "Synchronize the clock of the signer with that of AGS, compute exp when signing, and send the token "
        "at once.",
        (
            "The token was issued {iat}; at most {max_age} and a difference of {skew} are allowed.",
            "The token expired {exp}; a difference of {skew} is allowed.",
        ),
    ),
    "token_not_yet_valid": Reason(
        Step.TIMES,
        CALLER,
        "The token is not valid yet.",
        "Synchronize the clock of the signer with that of AGS; until then, staff can raise clock_skew of the "
        "service to at most 300 seconds.",
        ("The token is not valid yet: {name} is {time}, and a difference of {skew} is allowed.",),
    ),
    "lifetime_too_long": Reason(
        Step.TIMES,
        CALLER,
        "The token expires later than the service allows.",
        "Send exp in seconds, not in milliseconds, or raise max_lifetime of the service.",
        ("The token expires {exp}; at most {max_lifetime} are allowed.",),
    ),
    "replayed": Reason(
        Step.REPLAY,
        CALLER,
        "AGS has accepted a token with this jti before.",
        "Sign a new token with a new jti for each request, also for a repeated one.",
    ),
    "tenant_mismatch": Reason(
        Step.CLAIMS,
        CALLER,
        "The token was made for another tenant than the header nv-tenant-id names.",
        "Correct the header, or the tenant in the token: they are compared with case.",
        ("The claim {name} of the token names another tenant than the header nv-tenant-id.",),
    ),
    "account_ambiguous": Reason(
        Step.ONE_ACCOUNT,
        CALLER,
        "The credentials match several accounts, and this endpoint cannot offer a choice.",
        "Use signOn of a service with subsequentSignOn, or let the server of the operator return one "
        "account.",
    ),
    # Tenants and services
    "tenant_not_available": Reason(
        Step.TENANT,
        CALLER,
        "No tenant has the ID in the header nv-tenant-id, or the tenant is disabled.",
        "Correct the header, which is compared with case, or enable the tenant in the admin.",
    ),
    "service_not_available": Reason(
        Step.SERVICE,
        CALLER,
        "The tenant has no enabled service with the name in the header x-auth-service-id.",
        "Correct the header, which is compared with case, or enable the service in the admin, and check its "
        "configuration.",
    ),
    "endpoint_not_offered": Reason(
        Step.SERVICE,
        CALLER,
        "The service exists, and does not offer this endpoint.",
        "Call an endpoint that service discovery lists for the service.",
    ),
    "no_services": Reason(
        Step.SERVICE,
        CONFIGURATION,
        "The tenant offers no services.",
        "Enable a service of the tenant in the admin, and check its configuration.",
    ),
    "no_key_set": Reason(
        Step.TENANT,
        CALLER,
        "No enabled tenant has the ID in ?tenant= of the URL.",
        "Correct the URL of the key set, or enable the tenant in the admin.",
    ),
    # Tokens of AGS
    "token_missing": Reason(
        Step.REQUEST,
        CALLER,
        "The request has no token in the header Authorization.",
        "Send the token as Authorization: Bearer, and look for a proxy that removes the header.",
    ),
    "token_malformed": Reason(
        Step.FORM,
        CALLER,
        "The token is not one that AGS issued to this tenant for this endpoint, or the key that signed it is "
        "no longer used.",
        "Send the right token, or sign on again; if all apps get this, look for a revoked signing key or a "
        "removed encryption key.",
    ),
    "token_unknown": Reason(
        Step.TOKEN_KNOWN,
        CALLER,
        "AGS has no such token of this service: it is of another service, was purged, or was replaced by a "
        "later sign-on of the device.",
        "Sign on again.",
    ),
    "token_spent": Reason(
        Step.TOKEN_UNUSED,
        CALLER,
        "The session token, or the choice of an account, was used before.",
        "Get a new one; if the subscriber did not use it, it was stolen: look at the security events.",
    ),
    "token_reused": Reason(
        Step.TOKEN_UNUSED,
        CALLER,
        "The refresh token was used before, longer ago than the grace, so AGS has ended the sign-on.",
        "Sign on again; the app must store both tokens of each response, and a copied token may have been "
        "stolen.",
    ),
    "sign_on_ended": Reason(
        Step.SIGN_ON,
        CALLER,
        "The sign-on has ended: by a sign-out, by staff, by reuse of a refresh token, or at its fixed end.",
        "Sign on again; the page of the device in the admin shows why it ended.",
    ),
    "revoked": Reason(
        Step.TOKEN_NOT_REVOKED,
        CONFIGURATION,
        "The token was revoked, or staff have revoked everything issued up to its time.",
        "Sign on again; the history of the tenant, service, key or account shows who revoked, and when.",
    ),
    "account_suspended": Reason(
        Step.ACCOUNT,
        Side.STAFF,
        "The account of the subscriber is suspended.",
        "Reactivate the account in the admin, or correct its status in the server of the operator if that "
        "has reported it.",
    ),
    "account_cancelled": Reason(
        Step.ACCOUNT,
        Side.STAFF,
        "The account of the subscriber is cancelled.",
        "The subscriber needs another account: a cancellation in AGS is permanent.",
    ),
    "device_unknown": Reason(
        Step.DEVICE,
        CALLER,
        "The account has no device with this clientId, or the device was deleted.",
        "The app signs on with deviceInformation, as a new device.",
    ),
    "device_deleted": Reason(
        Step.DEVICE,
        CALLER,
        "Staff have deleted the device.",
        "The app signs on with deviceInformation, as a new device.",
    ),
    "device_disabled": Reason(
        Step.DEVICE,
        Side.STAFF,
        "Staff have disabled the device.",
        "Enable the device in the admin.",
    ),
    "device_limit_reached": Reason(
        Step.DEVICE,
        Side.SUBSCRIBER,
        "The account has as many enabled devices as the tenant allows.",
        "Delete or disable a device of the account in the admin, or raise device_limit of the tenant.",
    ),
    # Limits
    "too_many_failures": Reason(
        Step.ADDRESS_LIMIT,
        CALLER,
        "Too many requests of this client address were refused in 10 seconds, so all its requests are.",
        "Correct the cause of the earlier refusals; add the network of a head-end to exempt_networks of the "
        "tenant.",
        (
            "Too many requests of this client address were refused in 10 seconds, so all its requests are, "
            "for {retry_after}.",
        ),
    ),
    "too_many_sign_ons": Reason(
        Step.ACCOUNT_LIMIT,
        CALLER,
        "The account has had too many session tokens and sign-ons in 60 seconds.",
        "Look for a head-end or an app that repeats requests that succeed, or raise "
        "max_sign_ons_per_account of the tenant.",
        (
            "The account has had too many session tokens and sign-ons in 60 seconds; the next one is "
            "possible after {retry_after}.",
        ),
    ),
    "too_many_password_failures": Reason(
        Step.PASSWORD_LIMIT,
        Side.SUBSCRIBER,
        "Too many passwords of this username were wrong in 15 minutes.",
        "The subscriber waits, or uses a device that has signed on before; many such lines mean that "
        "somebody guesses passwords.",
        (
            "Too many passwords of this username were wrong in 15 minutes; the next one is possible after "
            "{retry_after}.",
        ),
    ),
    "too_many_refreshes": Reason(
        Step.REFRESH_LIMIT,
        Side.CLIENT_APP,
        "The app has refreshed one sign-on too often within the grace.",
        "The app waits and sends the same refresh token again, and refreshes only when its access token "
        "expires.",
        (
            "The app has refreshed one sign-on too often within the grace; the next refresh is possible "
            "after {retry_after}.",
        ),
    ),
    "too_many_logins": Reason(
        Step.STAFF,
        Side.STAFF,
        "Too many logins of staff have failed.",
        "Wait, and log in with the right password.",
    ),
    "too_many_passwords": Reason(
        Step.STAFF,
        Side.STAFF,
        "Too many passwords of staff were entered at the same time.",
        "Try again after some seconds; if it persists, look for a flood of logins in the log.",
    ),
    "too_many_openings": Reason(
        Step.STAFF,
        CALLER,
        "An explanation link was opened too often in a short time.",
        "Wait; if it persists, revoke the link and create another one.",
    ),
    # The form of a request
    "request_malformed": Reason(
        Step.REQUEST,
        CALLER,
        "The request is not valid HTTP, or was not sent completely.",
        "Send one Host, one Content-Type and one Content-Length, and the whole request within 10 seconds.",
    ),
    "body_unreadable": Reason(
        Step.REQUEST,
        CALLER,
        "The body of the request did not arrive completely within 10 seconds.",
        "Send the whole request within 10 seconds, and look at the network and the proxies in between.",
    ),
    "header_missing": Reason(
        Step.REQUEST,
        CALLER,
        "A mandatory header is missing.",
        "Send the header; a proxy may remove it.",
        ("The header {name} is missing.",),
    ),
    "header_invalid": Reason(
        Step.REQUEST,
        CALLER,
        "A header does not have the documented format.",
        "Correct the value of the header; tenantId and nv-tenant-id must not differ.",
        ("The header {name} does not have the documented format.",),
    ),
    "header_repeated": Reason(
        Step.REQUEST,
        CALLER,
        "A header occurs more than once, or contains a comma.",
        "Send the header once and without a comma; a proxy may have added a second one.",
        ("The header {name} occurs more than once, or contains a comma.",),
    ),
    "host_invalid": Reason(
        Step.REQUEST,
        Side.AGS,
        "The header Host does not name a host of this installation.",
        "Add the host to AGS_ALLOWED_HOSTS, or let the proxy pass on Host; otherwise correct the URL.",
    ),
    "body_malformed": Reason(
        Step.REQUEST,
        CALLER,
        "The body is not a strict JSON object.",
        "Send a JSON object in UTF-8, without duplicate members.",
        ("The body is not a strict JSON object: {problem}.",),
    ),
    "parameters_malformed": Reason(
        Step.REQUEST,
        CALLER,
        "The member parameters of the body is not an array of names and values.",
        'Send parameters as an array of {"name": "…", "value": "…"}.',
    ),
    "parameter_unknown": Reason(
        Step.PARAMETERS,
        CALLER,
        "The body has a parameter that the service does not declare.",
        "Send only what service discovery lists for this service.",
        ("The body has a parameter that the service does not declare; it declares {declared}.",),
    ),
    "parameter_repeated": Reason(
        Step.REQUEST,
        CALLER,
        "The body contains a parameter more than once.",
        "Send each parameter once; names are compared without case.",
    ),
    "parameter_missing": Reason(
        Step.PARAMETERS,
        CALLER,
        "A mandatory parameter is missing.",
        "Send all mandatory parameters that service discovery lists for this service.",
        ("The mandatory parameter {parameter} is missing.",),
    ),
    "parameter_invalid": Reason(
        Step.PARAMETERS,
        CALLER,
        "The value of a parameter is not a string of the declared length.",
        "Send a string that is no longer than maxLength of service discovery.",
        ("The value of the parameter {parameter} is not a string of the declared length.",),
    ),
    "sign_on_malformed": Reason(
        Step.REQUEST,
        CALLER,
        "The body has neither a valid clientId nor deviceInformation, or both.",
        "Send deviceInformation at the first sign-on of the device, and clientId later.",
    ),
    "form_malformed": Reason(
        Step.REQUEST,
        CALLER,
        "The body is not a form with one token.",
        "Send a form with one token.",
    ),
    "client_authentication_repeated": Reason(
        Step.REQUEST,
        CALLER,
        "The resource server authenticates in two ways at the same time.",
        "Send the client secret either in the header Authorization or in the form.",
    ),
    "client_not_authenticated": Reason(
        Step.CLIENT,
        CALLER,
        "The client ID or the client secret is invalid.",
        "Use the client ID and the secret of an enabled resource server of the tenant.",
    ),
    "not_found": Reason(
        Step.REQUEST,
        CALLER,
        "Nothing is at this URL, or this process does not serve it.",
        "Correct the URL, or the route of the proxy.",
    ),
    "method_not_allowed": Reason(
        Step.REQUEST,
        CALLER,
        "The URL does not support the method of the request.",
        "Use a method of the header Allow in the response.",
    ),
    "body_too_large": Reason(
        Step.REQUEST,
        CALLER,
        "The body is too large.",
        "Send at most 64 KiB.",
    ),
    "uri_too_long": Reason(
        Step.REQUEST,
        CALLER,
        "The request line is longer than 4 KiB.",
        "Send parameters in the body, not in the URL.",
    ),
    "unsupported_media_type": Reason(
        Step.REQUEST,
        CALLER,
        "The body is not uncompressed application/json in UTF-8.",
        "Send Content-Type: application/json, in UTF-8 and without compression.",
    ),
    "form_expected": Reason(
        Step.REQUEST,
        CALLER,
        "The body is not an uncompressed form in UTF-8.",
        "Send Content-Type: application/x-www-form-urlencoded.",
    ),
    "range_not_satisfiable": Reason(
        Step.REQUEST,
        CALLER,
        "The static file does not contain the requested range of bytes.",
        "Send another Range.",
    ),
    "expectation_failed": Reason(
        Step.REQUEST,
        CALLER,
        "AGS does not support the value of the header Expect.",
        "Send Expect: 100-continue, or none.",
    ),
    "headers_too_large": Reason(
        Step.REQUEST,
        CALLER,
        "A header is larger than 8 KiB, there are more than 100, or all of them have more than 64 KiB.",
        "Send fewer or smaller headers.",
    ),
    "not_implemented": Reason(
        Step.REQUEST,
        CALLER,
        "AGS does not support the Transfer-Encoding of the request.",
        "Send Transfer-Encoding: chunked, or none.",
    ),
    "disconnected": Reason(
        Step.REQUEST,
        CALLER,
        "The client closed the connection before the response.",
        "Give the client and the proxies in between a longer timeout than AGS needs.",
    ),
    # Pages of staff, and codes that the log has only in their place
    "not_permitted": Reason(
        Step.STAFF,
        Side.STAFF,
        "The member of staff does not have the permission.",
        "Ask an administrator for the permission.",
    ),
    "form_expired": Reason(
        Step.STAFF,
        Side.STAFF,
        "The form of the admin has expired.",
        "Reload the page, and try again.",
    ),
    "origin_mismatch": Reason(
        Step.STAFF,
        Side.AGS,
        "The form of the admin comes from another site, or a proxy changes Host or X-Forwarded-Proto.",
        "Let the proxy pass on Host and X-Forwarded-Proto.",
    ),
    "not_authenticated": Reason(
        Step.CREDENTIALS,
        CALLER,
        "The credentials are invalid or have expired.",
        "Look for the line of the request in the log, which has the precise reason.",
    ),
    # Upstreams
    "upstream_slow": Reason(
        Step.UPSTREAM,
        Side.UPSTREAM,
        "The server of the operator did not respond within the deadline of the service.",
        "Ask the operator why it is slow, and raise deadline only if a subscriber can wait that long.",
    ),
    "upstream_busy": Reason(
        Step.UPSTREAM,
        Side.UPSTREAM,
        "Too many requests were already waiting for the server of the operator.",
        "Ask the operator why it is slow.",
    ),
    "upstream_away": Reason(
        Step.UPSTREAM,
        Side.UPSTREAM,
        "The server of the operator could not be reached, or closed the connection.",
        "Check the network, the name of the server, and whether the firewall lets AGS through.",
    ),
    "upstream_untrusted": Reason(
        Step.UPSTREAM,
        Side.UPSTREAM,
        "The certificate of the server of the operator is not trusted for its name.",
        "The operator renews the certificate, or staff enter its authority in ca_certificates of the "
        "service.",
    ),
    "upstream_forbidden": Reason(
        Step.UPSTREAM,
        CONFIGURATION,
        "The address of the server of the operator is private, and AGS_PRIVATE_UPSTREAMS does not allow it.",
        "If the address is right, add its network to AGS_PRIVATE_UPSTREAMS, and restart.",
    ),
    "upstream_too_large": Reason(
        Step.UPSTREAM,
        Side.UPSTREAM,
        "The response of the server of the operator is too large.",
        "Correct the URL in the settings of the service, or let the operator make the document smaller.",
    ),
    "upstream_wrong": Reason(
        Step.UPSTREAM,
        Side.UPSTREAM,
        "The response of the server of the operator is not what the provider expects.",
        "Check the configuration of the service, which describes the problem, and read the page of the "
        "provider.",
        ("The server of the operator cannot be used: {problem}.",),
    ),
    "upstream_refuses_us": Reason(
        Step.UPSTREAM,
        CONFIGURATION,
        "The server of the operator rejects the credentials of AGS.",
        "Enter the current secret in the settings of the service.",
    ),
    # AGS itself
    "no_signing_key": Reason(
        Step.SIGNING_KEY,
        Side.AGS,
        "The tenant has no signing key that AGS can use.",
        "Look for a signing key that cannot be decrypted; otherwise run manage.py rotate_signing_key.",
    ),
    "database_unavailable": Reason(
        Step.AVAILABILITY,
        Side.AGS,
        "The database of AGS did not answer, refused connections, or was read-only.",
        "Send the request again; look at PostgreSQL if it continues.",
    ),
    "waited_too_long": Reason(
        Step.AVAILABILITY,
        Side.AGS,
        "The request waited for 4 seconds for a thread or the database.",
        "Send the request again; look for slow upstreams and for what blocks the database if it continues.",
    ),
    "configuration_changing": Reason(
        Step.AVAILABILITY,
        Side.AGS,
        "The tenant was changed twice while the request was verified.",
        "Send the request again.",
    ),
    "unavailable": Reason(
        Step.AVAILABILITY,
        Side.AGS,
        "The bodies of unanswered requests reached the limit of the process.",
        "Send the request again; look for clients that send large bodies slowly if it continues.",
    ),
    "stopping": Reason(
        Step.AVAILABILITY,
        Side.AGS,
        "The process was being stopped.",
        "Nothing: the load balancer uses another process.",
    ),
    "database_not_migrated": Reason(
        Step.AVAILABILITY,
        Side.AGS,
        "The database lacks migrations of this version of AGS.",
        "Run manage.py migrate.",
    ),
    "database_read_only": Reason(
        Step.AVAILABILITY,
        Side.AGS,
        "The database is read-only, such as a standby.",
        "Let DATABASE_URL lead to the primary.",
    ),
    "clock_differs": Reason(
        Step.AVAILABILITY,
        Side.AGS,
        "The clock of the machine differs from that of the database by more than AGS_CLOCK_TOLERANCE.",
        "Synchronize both clocks.",
    ),
    "internal_error": Reason(
        Step.AVAILABILITY,
        Side.AGS,
        "A defect in AGS or in a provider.",
        "Report it with the line crash of the log that has this correlation ID.",
    ),
}

ISSUED_TOKEN_REASONS: Mapping[str, Reason] = {
    "token_expired": Reason(
        Step.TOKEN_NOT_EXPIRED,
        CALLER,
        "The token of AGS has expired.",
        "Get a new session token, or sign on again.",
    ),
    "key_not_in_force": Reason(
        Step.KEY_STATE,
        CONFIGURATION,
        "The key that proved the session token was revoked, or reached its Not after, before the token was "
        "redeemed.",
        "Get a new session token, which is proved by a key in force.",
    ),
}
"""Reasons that mean something else where the token is one of AGS."""

STEPS_OF_CLAIMS: Mapping[str, Step] = {
    "typ": Step.TYPE,
    "token_type": Step.TYPE,
    "iss": Step.ISSUER,
    "aud": Step.AUDIENCE,
    "azp": Step.AUDIENCE,
    "exp": Step.TIMES,
    "nbf": Step.TIMES,
    "iat": Step.TIMES,
    "nonce": Step.NONCE,
    "jti": Step.REPLAY,
}
"""The step that fails if this claim is missing or invalid."""
