//! NATS clients on the bus, on the status page.

use serde_json::Value;

use super::super::escape::escape;
use crate::config::units::about_bytes as about;
use crate::status::StatusReport;

/// Lines about the service; none when it is off.
pub(super) fn nats(report: &StatusReport) -> Vec<String> {
    let nats = &report.nats;
    if nats.is_null() {
        return Vec::new();
    }
    if let Some(error) = nats["error"].as_str() {
        return vec![format!("not served: {}", escape(error))];
    }
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let server = &nats["server"];
    let connections = server["connections"].as_array().map_or(0, Vec::len);
    let mut lines = vec![format!(
        "on {}: {connections} connections ({} ever), {} subscriptions, {} in, {} out, {} slow consumers, {} refused for lack of permission",
        escape(server["listen"].as_str().unwrap_or("?")),
        number(&server["total_connections"]),
        number(&server["subscriptions"]),
        number(&server["in_msgs"]),
        number(&server["out_msgs"]),
        number(&server["slow_consumers"]),
        number(&server["permission_violations"]),
    )];
    for stream in nats["streams"].as_array().into_iter().flatten() {
        let name = escape(stream["name"].as_str().unwrap_or("?"));
        let consumers: Vec<&Value> = stream["consumers"].as_array().into_iter().flatten().collect();
        let waiting: u64 = consumers.iter().map(|consumer| number(&consumer["num_pending"])).sum();
        let unacknowledged: u64 = consumers.iter().map(|consumer| number(&consumer["num_ack_pending"])).sum();
        let behind = match consumers.len() {
            0 => String::new(),
            count => format!(", {count} consumers with {waiting} messages to come and {unacknowledged} unacknowledged"),
        };
        let refused = match number(&stream["refused"]) {
            0 => String::new(),
            refused => format!(", {refused} publications refused"),
        };
        lines.push(format!("{name}: {} messages, {}{behind}{refused}", number(&stream["messages"]), about(number(&stream["bytes"]))));
    }
    lines
}
