"""CRLs, certificates' status and health over HTTP, judged by OpenSSL's own programs."""

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from broker.adapters.metrics import MetricsListenError
from broker.core.lifecycle import DeviceInput
from broker.entry.http.server import HttpListenError
from broker.protocol.zones import Zone
from tests.support.acting import act, joined
from tests.support.certificates import Client
from tests.support.http import Answer, ask
from tests.support.ports import free_port
from tests.support.stack import Plan, Stack, running_stack
from tests.support.waiting import eventually

OCSP_TYPE = "application/ocsp-response"


@dataclass
class Site:
    """A running installation, and where its HTTP is."""

    stack: Stack
    port: int

    async def openssl_ocsp(self, client: Client, *options: str) -> str:
        """What `openssl ocsp` finds about the certificate; it verifies the answer by the root."""
        home = self.stack.home
        leaf = client.certificate.with_suffix(".leaf")
        leaf.write_bytes(client.leaf.public_bytes(Encoding.PEM))
        return await run(
            *("openssl", "ocsp", "-url", f"http://127.0.0.1:{self.port}/ocsp"),
            *("-issuer", str(home.operational.certificate), *options, "-cert", str(leaf)),
            *("-CAfile", str(home.root.certificate), "-no-CApath", "-resp_text"),
        )

    async def post(self, request: bytes) -> Answer:
        return await ask(self.port, "/ocsp", method="POST", body=request)

    def issuer(self) -> x509.Certificate:
        pem = self.stack.home.operational.certificate.read_bytes()
        return x509.load_pem_x509_certificate(pem)


async def run(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    text = output.decode()
    assert process.returncode == 0, text
    return text


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    port = free_port()
    async with running_stack(tmp_path, Plan(http_port=port)) as stack:
        await stack.installation.standard([])
        yield Site(stack, port)


async def test_openssl_follows_a_certificate_through_its_life(site: Site, tmp_path: Path) -> None:
    lamp, neighbour = await joined(site.stack, tmp_path, "A1", "B2")
    text = await site.openssl_ocsp(lamp)
    assert ": good" in text
    assert "Response verify OK" in text
    assert "WARNING" not in text  # no nonce in the answer, say
    assert "muster-ocsp" in text

    await act(site.stack, DeviceInput.SUSPEND, lamp.name)
    text = await site.openssl_ocsp(lamp)
    assert ": revoked" in text
    assert "certificateHold" in text
    await act(site.stack, DeviceInput.RESUME, lamp.name)
    assert ": good" in await site.openssl_ocsp(lamp, "-no_nonce")
    await act(site.stack, DeviceInput.REVOKE, lamp.name)
    text = await site.openssl_ocsp(lamp, "-sha256")
    assert ": revoked" in text
    assert "(0x9)" in text  # privilegeWithdrawn, for which OpenSSL 3.0 has no name
    assert ": good" in await site.openssl_ocsp(neighbour, "-sha256")


async def test_a_serial_number_that_was_never_issued_is_unknown(site: Site) -> None:
    issuer = site.stack.home.operational.certificate
    text = await run(
        *("openssl", "ocsp", "-url", f"http://127.0.0.1:{site.port}/ocsp"),
        *("-issuer", str(issuer), "-serial", "0x1234"),
        *("-CAfile", str(site.stack.home.root.certificate), "-no-CApath"),
    )
    assert "0x1234: unknown" in text


async def test_get_is_for_caches_and_the_same(site: Site, tmp_path: Path) -> None:
    (lamp,) = await joined(site.stack, tmp_path, "A1")
    builder = ocsp.OCSPRequestBuilder()
    request = builder.add_certificate(lamp.leaf, site.issuer(), hashes.SHA1()).build()  # noqa: S303
    quoted = base64.b64encode(request.public_bytes(Encoding.DER)).decode()
    for path in (quoted, quoted.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")):
        answer = await ask(site.port, f"/ocsp/{path}")
        assert (answer.status, answer.headers["content-type"]) == (200, OCSP_TYPE)
        assert "max-age=60" in answer.headers["cache-control"]
        assert "expires" in answer.headers
        response = ocsp.load_der_ocsp_response(answer.body)
        assert response.certificate_status is ocsp.OCSPCertStatus.GOOD


async def test_what_isn_t_a_question_is_answered_so(site: Site) -> None:
    for body, status in ((b"", 200), (b"\x30\x00", 200), (b"x" * 2048, 200), (b"x" * 2049, 400)):
        answer = await site.post(body)
        assert answer.status == status
        if status == 200:
            response = ocsp.load_der_ocsp_response(answer.body)
            assert response.response_status is ocsp.OCSPResponseStatus.MALFORMED_REQUEST
            assert answer.headers["cache-control"] == "no-store"
    answer = await ask(site.port, "/ocsp/not*base64")
    response = ocsp.load_der_ocsp_response(answer.body)
    assert response.response_status is ocsp.OCSPResponseStatus.MALFORMED_REQUEST


async def test_crls_verify_by_their_issuers(site: Site, tmp_path: Path) -> None:
    (lamp,) = await joined(site.stack, tmp_path, "A1")
    before = await ask(site.port, "/crl/fleet.der")
    await act(site.stack, DeviceInput.REVOKE, lamp.name)
    answer = await ask(site.port, "/crl/fleet.der", {"If-None-Match": before.headers["etag"]})
    assert (answer.status, answer.headers["content-type"]) == (200, "application/pkix-crl")
    crl = x509.load_der_x509_crl(answer.body)
    assert crl.is_signature_valid(site.issuer().public_key())  # type: ignore[arg-type]
    assert crl.get_revoked_certificate_by_serial_number(lamp.leaf.serial_number) is not None
    again = {"If-None-Match": answer.headers["etag"]}
    assert (await ask(site.port, "/crl/fleet.der", again)).status == 304
    assert answer.headers["cache-control"].startswith("public, max-age=60")

    for zone in Zone:
        pem = (await ask(site.port, f"/crl/{zone}.pem")).body
        assert pem == site.stack.home.crl_file(zone).read_bytes()
    home = site.stack.home
    for pair, name in ((home.operational, "fleet"), (home.claim, "claim")):
        authority = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
        key = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        answer = await ask(site.port, f"/crl/{name}/{key.digest.hex()}.der")
        assert x509.load_der_x509_crl(answer.body).issuer == authority.subject


@pytest.mark.parametrize("path", ["/crl/root.pem", "/crl/fleet/00.der", "/crl/", "/crl/fleet"])
async def test_there_are_no_other_crls(site: Site, path: str) -> None:
    assert (await ask(site.port, path)).status == 404


async def test_health_is_whether_devices_are_answered(site: Site) -> None:
    async def is_well() -> bool:
        answer = await ask(site.port, "/healthz")
        return (answer.status, answer.body) == (200, b'{"claim":true,"fleet":true}')

    await eventually(is_well)


async def test_the_responder_s_certificate_is_no_device_s(site: Site, tmp_path: Path) -> None:
    """It comes from the authority that brokers trust for devices, and its key is in memory only."""
    (lamp,) = await joined(site.stack, tmp_path, "A1")
    builder = ocsp.OCSPRequestBuilder()
    request = builder.add_certificate(lamp.leaf, site.issuer(), hashes.SHA256()).build()
    answer = await site.post(request.public_bytes(Encoding.DER))
    (responder,) = ocsp.load_der_ocsp_response(answer.body).certificates
    file = tmp_path / "responder.crt"
    file.write_bytes(responder.public_bytes(Encoding.PEM))
    home = site.stack.home
    process = await asyncio.create_subprocess_exec(
        *("openssl", "verify", "-purpose", "sslclient", "-no-CApath", "-no-CAstore"),
        *("-CAfile", str(home.client_anchors(Zone.FLEET)), str(file)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, complaint = await process.communicate()
    assert process.returncode != 0
    assert b"certificate purpose" in complaint


async def test_without_a_port_nothing_listens(tmp_path: Path) -> None:
    async with running_stack(tmp_path, Plan()) as stack:
        assert stack.installation.settings.http.port is None


async def test_a_taken_port_ends_the_start_with_a_reason(tmp_path: Path) -> None:
    listener = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with listener:
        for name in ("http", "metrics"):
            (tmp_path / name).mkdir()
        with pytest.raises(HttpListenError, match="taken"):
            async with running_stack(tmp_path / "http", Plan(http_port=port)):
                pass
        with pytest.raises(MetricsListenError, match="taken") as refused:
            async with running_stack(tmp_path / "metrics", Plan(metrics_port=port)):
                pass
    assert "metrics_port" in refused.value.remedy


async def test_a_signal_ends_the_service_in_order_with_clients_connected(tmp_path: Path) -> None:
    port = free_port()
    async with running_stack(tmp_path, Plan(http_port=port, in_process=False)) as stack:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200" in await reader.readline()
        writer.write(b"GET /healthz HTTP")  # and the rest never comes
        await stack.stop_service()
        assert stack.process.lines("stopped")
        writer.close()
