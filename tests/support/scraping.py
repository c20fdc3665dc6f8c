"""The service's metrics, as Prometheus reads them."""

import asyncio
import urllib.request

from prometheus_client.parser import text_string_to_metric_families


async def requests_counted(port: int) -> dict[tuple[str, str, str], int]:
    """How many requests there were, by zone, operation and outcome."""
    text = await asyncio.to_thread(_scrape, port)
    return {
        (s.labels["zone"], s.labels["operation"], s.labels["outcome"]): int(s.value)
        for family in text_string_to_metric_families(text)
        for s in family.samples
        if s.name == "muster_requests_total"
    }


def _scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        return str(answer.read(), "utf-8")
