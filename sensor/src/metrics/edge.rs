//! The service for NATS clients: connections, traffic, streams, consumers.

use bartizan_bus::edge::EdgeStats;
use bartizan_bus::jetstream::{ConsumerStats, StreamStats};

use super::Family;

pub(super) fn families(stats: &EdgeStats) -> Vec<Family> {
    let EdgeStats { server, streams } = stats;
    let closed: Vec<_> = server.closed.iter().map(|(reason, count)| (reason.as_str(), *count)).collect();
    let waiting: u64 = server.connections.iter().map(|connection| connection.pending_bytes).sum();
    let mut families = vec![
        Family::gauge("nats_connections", "NATS clients connected now").of(server.connections.len() as u64),
        Family::counter("nats_connections_opened", "NATS clients that ever connected").of(server.total_connections),
        Family::counter("nats_connections_closed", "Connections that ended, by reason")
            .each(closed, |(reason, count)| ([("reason", *reason)], *count)),
        Family::counter("nats_slow_consumers", "Connections closed because they did not read").of(server.slow_consumers),
        Family::gauge("nats_subscriptions", "Subscriptions now, of clients and of the process itself").of(server.subscriptions),
        Family::counter("nats_permission_violations", "Publications and subscriptions refused for lack of permission")
            .of(server.permission_violations),
        Family::counter("nats_accept_errors", "Connections that could not be accepted").of(server.accept_errors),
        Family::counter("nats_received_messages", "Messages from clients").of(server.in_msgs),
        Family::counter("nats_received", "Bytes of messages from clients").in_bytes().of(server.in_bytes),
        Family::counter("nats_sent_messages", "Messages to clients").of(server.out_msgs),
        Family::counter("nats_sent", "Bytes sent to clients").in_bytes().of(server.out_bytes),
        Family::gauge("nats_pending", "Bytes that wait to be sent, of all clients").in_bytes().of(waiting),
    ];
    let stream = |name, help, number: fn(&StreamStats) -> u64| {
        Family::gauge(name, help).each(streams, |stream| ([("stream", stream.name.as_str())], number(stream)))
    };
    families.extend([
        stream("jetstream_stream_messages", "Messages held", |stream| stream.messages),
        stream("jetstream_stream_stored", "Bytes of the messages held, before compression", |stream| stream.bytes).in_bytes(),
        stream("jetstream_stream_first_sequence", "Sequence of the oldest message", |stream| stream.first_seq),
        stream("jetstream_stream_last_sequence", "Sequence of the newest message", |stream| stream.last_seq),
        Family::counter("jetstream_stream_forgotten_ids", "Message ids forgotten within the duplicate window")
            .each(streams, |stream| ([("stream", stream.name.as_str())], stream.forgotten_ids)),
        Family::counter("jetstream_stream_refused_publications", "Publications that the stream did not take")
            .each(streams, |stream| ([("stream", stream.name.as_str())], stream.refused)),
    ]);
    // Those without a durable name have random ones, and are new with every client.
    let rows = streams.iter().flat_map(|stream| stream.consumers.iter().map(|consumer| (stream.name.as_str(), consumer)));
    let consumers: Vec<_> = rows.filter(|(_, consumer)| consumer.durable).collect();
    let each = |family: Family, number: fn(&ConsumerStats) -> u64| {
        family.each(&consumers, |(stream, consumer)| ([("stream", *stream), ("consumer", consumer.name.as_str())], number(consumer)))
    };
    families.extend([
        stream("jetstream_stream_ephemeral_consumers", "Consumers without a durable name", |stream| {
            stream.consumers.iter().filter(|consumer| !consumer.durable).count() as u64
        }),
        each(Family::gauge("jetstream_consumer_pending", "Messages to come"), |consumer| consumer.num_pending),
        each(Family::gauge("jetstream_consumer_ack_pending", "Messages delivered and not acknowledged"), |consumer| {
            consumer.num_ack_pending
        }),
        each(Family::counter("jetstream_consumer_redelivered", "Messages delivered more than once"), |consumer| consumer.redelivered),
        each(Family::gauge("jetstream_consumer_waiting", "Pull requests that wait"), |consumer| consumer.num_waiting),
    ]);
    families
}
