# Apache Kafka, one node that is broker and controller (KRaft). Sourced.
# shellcheck shell=bash disable=SC2153

# Not 4.4.0: it depends on kafka-tools-api 4.4.0, which Maven Central did not have.
KAFKA_VERSION=4.3.1
KAFKA_SOFTWARE=kafka-$KAFKA_VERSION

kafka_address() { echo "127.0.0.1:$KAFKA_PORT"; }

java_is_new_enough() {
    local version
    version=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p')
    ((${version:-0} >= 17))
}

kafka_jars() {
    command -v mvn >/dev/null || apt_install maven
    mvn -B -q -Dstyle.color=never -f "$HERE/kafka/pom.xml" dependency:copy-dependencies \
        -Dkafka.version="$KAFKA_VERSION" -DincludeScope=runtime -DoutputDirectory="$1"
}

kafka_install() {
    if ! java_is_new_enough; then
        apt_install 'openjdk-17-jre-headless|openjdk-21-jre-headless'
        java_is_new_enough || die "'java' is older than 17; put a newer one first in PATH"
    fi
    cached "$KAFKA_SOFTWARE" kafka_jars
}

# kafka_java ARGUMENTS...: sets `java_command`, with Kafka's jars and a quiet log.
kafka_java() {
    java_command=(java -cp "$CACHE/$KAFKA_SOFTWARE/*"
        -Dlog4j2.configurationFile="$HERE/kafka/log4j2.properties" "$@")
}

kafka_start() {
    local data=$STATE/kafka config=$STATE/kafka.properties
    cat >"$config" <<EOF
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$KAFKA_CONTROLLER_PORT
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$KAFKA_PORT,CONTROLLER://127.0.0.1:$KAFKA_CONTROLLER_PORT
advertised.listeners=PLAINTEXT://127.0.0.1:$KAFKA_PORT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$data
num.partitions=8
# A topic with a misspelt name must fail, not appear.
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
# After kill -9 the broker may register anew only when its old session is over (else 9 s).
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=1000
# One node: every internal topic has one copy, and few partitions open quickly.
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=8
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=8
EOF
    if [[ ! -e $data/meta.properties ]]; then
        # The cluster's id, 16 bytes in base64.
        kafka_java kafka.tools.StorageTool format --cluster-id dGlkZW1pbGwtc2VydmljZQ \
            --config "$config"
        "${java_command[@]}" >"$STATE/kafka-format.log" 2>&1 ||
            die "cannot format $data: $(tail -n 5 "$STATE/kafka-format.log")"
    fi
    kafka_java -Xms256m -Xmx1g -XX:+ExitOnOutOfMemoryError kafka.Kafka "$config"
    start kafka "${java_command[@]}"
}

# A Metadata request (key 3, version 1, correlation 1, no client id, no topics) answered with one
# live broker. An open port is not enough: it opens before the broker is unfenced.
kafka_answers() (
    { exec 3<>"/dev/tcp/127.0.0.1/$KAFKA_PORT"; } 2>/dev/null || exit 1
    printf '\0\0\0\x0e\0\x03\0\x01\0\0\0\x01\xff\xff\0\0\0\0' >&3
    reply=$(timeout 5 head -c 12 <&3 2>/dev/null | od -An -tx1 | tr -d ' \n')
    [[ ${reply:8:16} == 0000000100000001 ]]
)
