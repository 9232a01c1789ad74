//! Many short scenes on one sensor: to start one takes longer than most scenes.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::sensor::Sensor;

/// What happens, and what must be told of it.
pub type Scene = fn(&mut Sensor);

/// Functions that take a sensor, with their names.
#[macro_export]
macro_rules! scenes {
    ($($scene:ident),* $(,)?) => {
        &[ $( (stringify!($scene), $scene as $crate::Scene) ),* ]
    };
}

/// Plays every scene on `sensor`, also after one that failed.
///
/// # Panics
/// A scene failed; its name is said, and what it panicked with is above.
#[track_caller]
pub fn play(mut sensor: Sensor, scenes: &[(&str, Scene)]) {
    let mut failed = Vec::new();
    for (name, scene) in scenes {
        println!("scene {name}");
        if catch_unwind(AssertUnwindSafe(|| scene(&mut sensor))).is_err() {
            failed.push(*name);
        }
    }
    assert!(failed.is_empty(), "of {} scenes these failed, see above: {failed:?}", scenes.len());
}
