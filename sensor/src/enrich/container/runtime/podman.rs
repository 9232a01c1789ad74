//! podman: `GRAPHROOT/DRIVER-containers/containers.json` for name and image, and the OCI bundle `…/ID/userdata/config.json` for the pod.
//!
//! containers/storage, `containers.go`: `Container` (`id`, `names`, `image`, `metadata`), and the second list `volatile-containers.json` for those
//! made with `--rm`; `types/options.go`: a user's roots; root's are those of containers-storage.conf(5). podman, `libpod/storage.go`: `RuntimeContainerMetadata`, the
//! JSON in `metadata`; `pkg/specgen/generate/container.go` puts the pod's id into the annotation that CRI-O made. The pod's name and the container's
//! labels are in podman's database only.

use serde::Deserialize;

use super::{Metadata, ParseError, annotations, json, take, text};
use crate::enrich::container::id::Runtime;

/// Root's graph root, below the host's root.
pub const ROOT: &str = "var/lib/containers/storage";

/// Root's run root, which has the lists when podman keeps its store transient.
pub const RUN_ROOT: &str = "run/containers/storage";

/// A user's graph root, below the home.
pub const HOME_ROOT: &str = ".local/share/containers/storage";

/// A user's run root, below `run/user/UID`.
pub const USER_RUN_ROOT: &str = "containers";

/// Folders in a root that may have containers: the storage drivers that podman takes, the usual one first.
pub const FOLDERS: &[&str] = &["overlay-containers", "vfs-containers", "btrfs-containers", "zfs-containers"];

/// Lists in such a folder.
pub const LISTS: &[&str] = &["containers.json", "volatile-containers.json"];

/// The bundle below a container's folder.
pub const FILE: &str = "userdata/config.json";

#[derive(Deserialize)]
struct Entry {
    id: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    #[serde(default)]
    image: String,
    #[serde(default)]
    metadata: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Inner {
    #[serde(rename = "image-name")]
    image_name: String,
    name: String,
}

/// What a list says of the container `id`; `None` when it is not in it.
///
/// # Errors
/// [`ParseError`] when it is no list of containers.
pub fn parse_list(bytes: &[u8], id: &str) -> Result<Option<Metadata>, ParseError> {
    let entries: Vec<Entry> = json(bytes, Runtime::Podman)?;
    let Some(entry) = entries.into_iter().find(|entry| entry.id == id) else { return Ok(None) };
    let inner: Inner = if entry.metadata.is_empty() { Inner::default() } else { json(entry.metadata.as_bytes(), Runtime::Podman)? };
    let name = text(inner.name).or_else(|| entry.names.unwrap_or_default().into_iter().find_map(text));
    Ok(Some(Metadata { name, image: text(inner.image_name), image_id: text(entry.image), ..Metadata::default() }))
}

/// What a bundle says: the pod.
///
/// # Errors
/// [`ParseError`] when it is none.
pub fn parse(bytes: &[u8]) -> Result<Metadata, ParseError> {
    let mut all = annotations(bytes, Runtime::Podman)?;
    Ok(Metadata { pod_uid: take(&mut all, &["io.kubernetes.cri-o.SandboxID"]), ..Metadata::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrich::container::runtime::tests::ID;

    /// As podman 4.3.1 wrote it.
    fn list() -> String {
        format!(
            r#"[{{"id":"other","names":["db"],"image":"aa"}},{{"id":"{ID}","names":["t4"],"image":"1830301e4b40","layer":"ae1c",
                "metadata":"{{\"image-name\":\"localhost/test:latest\",\"image-id\":\"1830301e4b40\",\"name\":\"t4\",\"created-at\":1795826043}}",
                "created":"2026-11-28T00:34:03.7187989Z","flags":{{"MountLabel":"","ProcessLabel":""}}}}]"#
        )
    }

    #[test]
    fn name_and_image() {
        let expected = Metadata {
            name: Some("t4".into()),
            image: Some("localhost/test:latest".into()),
            image_id: Some("1830301e4b40".into()),
            ..Metadata::default()
        };
        assert_eq!(parse_list(list().as_bytes(), ID).unwrap(), Some(expected));
        let other = parse_list(list().as_bytes(), "other").unwrap().unwrap();
        assert_eq!((other.name.as_deref(), other.image), (Some("db"), None));
        assert_eq!(parse_list(list().as_bytes(), "none").unwrap(), None);
    }

    #[test]
    fn the_pod() {
        let bundle = br#"{"annotations":{"io.container.manager":"libpod","io.kubernetes.cri-o.SandboxID":"9509"}}"#;
        assert_eq!(parse(bundle).unwrap().pod_uid.as_deref(), Some("9509"));
    }

    #[test]
    fn metadata_that_is_no_json_is_an_error() {
        let list = format!(r#"[{{"id":"{ID}","metadata":"hunter2"}}]"#);
        assert!(matches!(parse_list(list.as_bytes(), ID), Err(ParseError::Json { .. })));
    }
}
