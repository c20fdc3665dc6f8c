# The service and its commands, and the device agent: what the wheel holds, in an environment of its
# own from the locked requirements, on the distribution's Python.
FROM debian:bookworm-slim AS build

RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 python3-venv

# What changes seldom comes first: a change of the code installs no requirement anew.
RUN python3 -m venv /opt/muster && python3 -m venv /opt/build
COPY requirements/server.txt requirements/build.txt /src/requirements/
RUN /opt/muster/bin/pip install --quiet --no-cache-dir --disable-pip-version-check \
      --require-hashes --requirement /src/requirements/server.txt

RUN /opt/build/bin/pip install --quiet --no-cache-dir --disable-pip-version-check \
      --require-hashes --requirement /src/requirements/build.txt

COPY pyproject.toml README.md CHANGELOG.md LICENSE /src/
COPY broker /src/broker
COPY device_client /src/device_client
RUN cd /src && /opt/build/bin/python -m hatchling build --target wheel --directory /tmp/dist \
 && /opt/muster/bin/pip install --quiet --no-deps --no-index --disable-pip-version-check /tmp/dist/*.whl \
 && /opt/muster/bin/pip uninstall --quiet --yes pip setuptools


FROM debian:bookworm-slim

# Ids are numbers that the brokers' and the database's images know too: they meet at sockets and in
# volumes. A fresh volume takes the owner and mode that its mount point has here. Being in the
# brokers' group is what opens their admin and reload sockets.
RUN groupadd --gid 10001 muster \
 && groupadd --gid 1883 muster-broker \
 && useradd --uid 10001 --gid 10001 --groups 1883 --home-dir /var/lib/muster --shell /usr/sbin/nologin muster \
 && groupadd --system --gid 542 postgres && usermod --append --groups postgres muster \
 && apt-get update \
 && apt-get install -y --no-install-recommends python3 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/* \
 && install -d /srv/muster /run/muster \
 && install -d -m 0700 -o 10001 -g 10001 /var/lib/muster /srv/muster/demo \
 && install -d -m 0755 -o 10001 -g 10001 /srv/muster/published \
 && install -d -m 0750 -o 10001 -g 1883 /srv/muster/claim-tls /srv/muster/fleet-tls \
 && install -d -m 0750 -o 10001 -g 542 /srv/muster/database-password \
 && install -d -m 0750 -o 1883 -g 1883 /run/muster/claim /run/muster/fleet

COPY --from=build /opt/muster /opt/muster
COPY --chmod=0755 deploy/containers/* /usr/local/lib/muster/

ENV PATH=/opt/muster/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    MUSTER_HOME=/var/lib/muster/home
USER muster
CMD ["/usr/local/lib/muster/serve"]
