"""Decryption of passwords that client apps encrypt with an RSA key of the operator."""

import secrets
from base64 import b64decode
from functools import lru_cache

from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP, AsymmetricPadding, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

BITS = range(2048, 4097)

PADDINGS: dict[str, AsymmetricPadding] = {
    "oaep_sha256": OAEP(MGF1(SHA256()), SHA256(), None),
    "oaep_sha256_mgf1_sha1": OAEP(MGF1(SHA1()), SHA256(), None),  # noqa: S303 - the default of Java; not used for signatures
    "oaep_sha1": OAEP(MGF1(SHA1()), SHA1(), None),  # noqa: S303 - the default of RFC 8017; not used for signatures
    "pkcs1v15": PKCS1v15(),
}
"""The padding of encrypted passwords (RFC 8017, section 7), by the value of the setting."""


@lru_cache(maxsize=1024)
def private_key(pem: str) -> RSAPrivateKey:
    """Return the key if its length is in `BITS`. Raises ValueError. Cached because loading a key is slow."""
    try:
        key = load_pem_private_key(pem.encode(), None)
    except (ValueError, TypeError):  # TypeError: the key is encrypted
        key = None
    if not isinstance(key, RSAPrivateKey) or key.key_size not in BITS:
        raise ValueError(f"not an unencrypted private RSA key of {BITS[0]} to {BITS[-1]} bits in PEM")
    return key


def decrypt_password(password: str, key: RSAPrivateKey, padding: str) -> str:
    """Return the decrypted `password` (base64), or a random text if it cannot be decrypted.

    If invalid padding and a wrong password had different results, an attacker could decrypt the passwords of
    others (Bleichenbacher, 1998). So in both cases a wrong password is sent to the operator. OpenSSL also
    returns a random text for input of the right length (implicit rejection).
    """
    random_text = secrets.token_urlsafe(24)
    try:
        # Some clients insert line breaks into base64.
        ciphertext = b64decode("".join(password.split()), validate=True)
        # Others omit leading zero octets, as in a number (RFC 8017, section 7).
        padded = ciphertext.rjust((key.key_size + 7) // 8, b"\0")
        return key.decrypt(padded, PADDINGS[padding]).decode() or random_text
    except ValueError:
        return random_text
