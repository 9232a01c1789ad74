//! What the tier of a hook sees, as the sensor says it.

use serde_json::Value;

use crate::sensor::Sensor;

/// Tiers below the system calls: who calls by which table, or by a ring, makes no difference to them.
const BELOW: [&str; 3] = ["fexit", "tp_btf", "cgroup"];

impl Sensor {
    /// Whether `hook` sees `callers`, such as `32-bit` or `io_uring`. A tier at the system calls does not, and names them as what it is
    /// blind to.
    ///
    /// # Panics
    /// There is no such hook, it has no tier, or it does not say what it is blind to.
    #[track_caller]
    pub fn sees(&self, hook: &str, callers: &str) -> bool {
        let status = self.status_json();
        let list = |name: &str| status[name].as_array().cloned().unwrap_or_default();
        let found = list("hooks").into_iter().find(|found| found["name"] == hook).unwrap_or_else(|| panic!("no hook {hook}"));
        assert!(found["tier"].is_string(), "no tier: {found:#}");
        let sees = BELOW.iter().any(|tier| found["tier"] == *tier);
        let names = |blind: &Value| blind["hook"] == hook && blind["what"].as_str().is_some_and(|what| what.contains(callers));
        assert_eq!(list("blind").iter().any(names), !sees, "what {hook} says of {callers} callers: {found:#}, {:#}", status["blind"]);
        sees
    }
}
