//! Files of container runtimes, and paths of control groups: the first byte says which.

use crate::enrich::container::id::of_path;
use crate::enrich::container::runtime::{Metadata, TEXT_MAX, containerd, crio, docker, podman};

/// The id that the files should be about.
const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// What is read is bounded and never empty; an id is safe as a part of a file name, and a path tells the same again when it is normalised.
pub fn containers(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else { return };
    let parsed = match kind % 6 {
        0 => docker::parse(bytes, ID).ok(),
        1 => containerd::parse(bytes).ok(),
        2 => crio::parse(bytes).ok(),
        3 => podman::parse(bytes).ok(),
        4 => podman::parse_list(bytes, ID).ok().flatten(),
        _ => {
            path(&String::from_utf8_lossy(bytes));
            None
        }
    };
    let Some(Metadata { name, image, image_id, pod_name, pod_namespace, pod_uid, labels }) = parsed else { return };
    for text in [name, image, image_id, pod_name, pod_namespace, pod_uid].iter().flatten().chain(labels.values()) {
        assert!((1..=TEXT_MAX).contains(&text.len()), "{} bytes of text", text.len());
    }
}

fn path(path: &str) {
    let Some(place) = of_path(path) else { return };
    for id in [Some(&place.id), place.within.as_ref(), place.pod.as_ref()].into_iter().flatten() {
        assert!((1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)), "{id:?}");
        assert!(id != "." && id != "..", "{id:?}");
    }
    assert_ne!(place.within.as_ref(), Some(&place.id), "a container within itself");
    let normal = path.split('/').filter(|component| !component.is_empty()).collect::<Vec<_>>().join("/");
    assert_eq!(of_path(&normal), Some(place));
}
