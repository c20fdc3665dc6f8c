"""Which keys are which type, and which are none."""

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa, x25519

from broker.core.keys import KeyType, key_type_of
from tests.support.csrs import private_key

ODD = 1


def rsa_key(bits: int, exponent: int = 65_537) -> rsa.RSAPublicKey:
    return rsa.RSAPublicNumbers(exponent, (1 << (bits - 1)) | ODD).public_key()


@pytest.mark.parametrize(
    ("kind", "key_type"),
    [
        ("p256", KeyType.P256),
        ("p384", KeyType.P384),
        ("ed25519", KeyType.ED25519),
        ("rsa-3072", KeyType.RSA),
    ],
)
def test_allowed_types(kind: str, key_type: KeyType) -> None:
    assert key_type_of(private_key(kind).public_key()) is key_type


@pytest.mark.parametrize("kind", ["p224", "p521", "secp256k1", "ed448", "dsa"])
def test_other_types_are_none(kind: str) -> None:
    assert key_type_of(private_key(kind).public_key()) is None


def test_a_key_that_can_t_sign_is_none() -> None:
    assert key_type_of(x25519.X25519PrivateKey.generate().public_key()) is None


@pytest.mark.parametrize("bits", [3072, 3073, 4096])
def test_rsa_within_bounds(bits: int) -> None:
    assert key_type_of(rsa_key(bits)) is KeyType.RSA


@pytest.mark.parametrize("bits", [1024, 2048, 3071, 4097, 8192, 16_384])
def test_rsa_out_of_bounds(bits: int) -> None:
    assert key_type_of(rsa_key(bits)) is None


@pytest.mark.parametrize("exponent", [3, 17, 65_539, (1 << 64) | ODD])
def test_rsa_with_an_odd_choice_of_exponent(exponent: int) -> None:
    assert key_type_of(rsa_key(3072, exponent)) is None
