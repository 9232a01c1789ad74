//! What container runtimes keep of a container on the host: where, and what it means. Pure: bytes to [`Metadata`].
//!
//! Paths and keys are those of the runtimes' own sources, named at each.

pub mod containerd;
pub mod crio;
pub mod docker;
pub mod podman;

use std::collections::BTreeMap;

use bartizan_bus::event::{ContainerInfo, Pod};
use minicbor::{Decode, Encode};
use serde::Deserialize;

use super::id::Runtime;

/// Longest text that is kept of a name or an image, bytes; a longer one is cut and ends in `...`. Image references have 255 characters of
/// name, 128 of tag and a digest at most (distribution/reference, regexp.go).
pub(crate) const TEXT_MAX: usize = 512;

/// Labels that are kept, by their keys: what the container is part of. Others are left out: they are the user's own, may hold secrets (a
/// reverse proxy's passwords), and would be in every event of the container.
const LABELS: &[&str] = &[
    "app.kubernetes.io/component",
    "app.kubernetes.io/name",
    "com.docker.compose.project",
    "com.docker.compose.service",
    "com.docker.stack.namespace",
    "com.docker.swarm.service.name",
    "io.podman.compose.project",
];

/// What a runtime's files say of a container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct Metadata {
    /// Name that its user gave, or its name in its pod.
    #[n(0)]
    pub name: Option<String>,
    /// Image, as the runtime names it.
    #[n(1)]
    pub image: Option<String>,
    /// Id of the image.
    #[n(2)]
    pub image_id: Option<String>,
    /// The pod's name.
    #[n(3)]
    pub pod_name: Option<String>,
    /// The pod's namespace.
    #[n(4)]
    pub pod_namespace: Option<String>,
    /// The pod's uid.
    #[n(5)]
    pub pod_uid: Option<String>,
    /// Those labels that are kept.
    #[n(6)]
    pub labels: BTreeMap<String, String>,
}

impl Metadata {
    /// What is known of the container with this added. What the control group says of the pod stays: it is the kubelet's word.
    pub fn complete(self, known: &ContainerInfo, runtime: Runtime) -> ContainerInfo {
        let Self { name, image, image_id, pod_name, pod_namespace, pod_uid, labels } = self;
        let uid = known.pod.as_ref().and_then(|pod| pod.uid.clone()).or(pod_uid);
        let pod = Pod { name: pod_name, namespace: pod_namespace, uid };
        ContainerInfo {
            runtime: Some(runtime.as_str().to_owned()),
            name,
            image,
            image_id,
            pod: Some(pod).filter(|pod| *pod != Pod::default()),
            within: known.within.clone(),
            user: known.user,
            labels,
        }
    }
}

/// A file that is not what its runtime writes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// No JSON, or not of the expected form. The text itself is not repeated: it may be a secret.
    #[error("it is not the JSON that {runtime} writes (line {line}, column {column})")]
    Json {
        /// Whose file it should be.
        runtime: &'static str,
        /// Where reading ended, from 1.
        line: usize,
        /// Likewise.
        column: usize,
    },
    /// It describes another container.
    #[error("it describes another container than its path says")]
    OtherContainer,
}

/// Reads JSON.
fn json<'de, T: Deserialize<'de>>(bytes: &'de [u8], runtime: Runtime) -> Result<T, ParseError> {
    let error = |error: serde_json::Error| ParseError::Json { runtime: runtime.as_str(), line: error.line(), column: error.column() };
    serde_json::from_slice(bytes).map_err(error)
}

/// The part of an OCI bundle's `config.json` that is read (opencontainers/runtime-spec, config.md).
#[derive(Deserialize)]
struct Spec {
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

/// The annotations of a bundle.
fn annotations(bytes: &[u8], runtime: Runtime) -> Result<BTreeMap<String, String>, ParseError> {
    Ok(json::<Spec>(bytes, runtime)?.annotations.unwrap_or_default())
}

/// The first of these keys that has a value, taken out.
fn take(from: &mut BTreeMap<String, String>, keys: &[&str]) -> Option<String> {
    keys.iter().find_map(|key| from.remove(*key).and_then(text))
}

/// A text of a file: `None` when empty, cut when long.
fn text(value: String) -> Option<String> {
    if value.is_empty() {
        return None;
    }
    if value.len() <= TEXT_MAX {
        return Some(value);
    }
    let mut end = TEXT_MAX - 3;
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    Some(format!("{}...", &value[..end]))
}

/// The labels that are kept.
fn labels(from: &mut BTreeMap<String, String>) -> BTreeMap<String, String> {
    LABELS.iter().filter_map(|key| Some(((*key).to_owned(), text(from.remove(*key)?)?))).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    /// Every parser on the same bytes.
    pub(crate) fn every(bytes: &[u8]) -> Vec<Metadata> {
        let parsed = [docker::parse(bytes, ID), containerd::parse(bytes), crio::parse(bytes), podman::parse(bytes)];
        parsed.into_iter().flatten().chain(podman::parse_list(bytes, ID).ok().flatten()).collect()
    }

    #[test]
    fn an_error_does_not_repeat_the_file() {
        let error = containerd::parse(br#"{"annotations": "hunter2"}"#).unwrap_err().to_string();
        assert_eq!(error, "it is not the JSON that containerd writes (line 1, column 25)");
    }

    #[test]
    fn long_texts_are_cut_at_a_letter_and_say_so() {
        let cut = text("ä".repeat(TEXT_MAX)).unwrap();
        assert!(cut.ends_with("ä...") && cut.len() <= TEXT_MAX, "{}", cut.len());
        assert_eq!(text("x".repeat(TEXT_MAX)).map(|kept| kept.len()), Some(TEXT_MAX));
    }

    #[test]
    fn labels_of_the_user_are_left_out() {
        let mut all = BTreeMap::from([
            ("com.docker.compose.project".to_owned(), "shop".to_owned()),
            ("traefik.http.middlewares.auth.basicauth.users".to_owned(), "admin:hunter2".to_owned()),
        ]);
        assert_eq!(labels(&mut all), BTreeMap::from([("com.docker.compose.project".to_owned(), "shop".to_owned())]));
    }

    #[test]
    fn what_the_control_group_says_of_the_pod_stays() {
        let known =
            ContainerInfo { pod: Some(Pod { uid: Some("kubelet's".into()), ..Pod::default() }), user: Some(7), ..ContainerInfo::default() };
        let found = Metadata { pod_uid: Some("file's".into()), pod_name: Some("shop".into()), ..Metadata::default() };
        let info = found.complete(&known, Runtime::Containerd);
        let pod = info.pod.unwrap();
        assert_eq!((pod.uid.as_deref(), pod.name.as_deref(), info.user), (Some("kubelet's"), Some("shop"), Some(7)));
        assert_eq!(Metadata::default().complete(&ContainerInfo::default(), Runtime::Podman).pod, None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_and_what_is_kept_is_bounded(bytes: Vec<u8>) {
            every(&bytes);
        }

        #[test]
        fn any_annotations_are_read_and_what_is_kept_is_bounded(values in proptest::collection::vec("\\PC{0,700}", 6)) {
            let keys = ["io.kubernetes.cri.container-name", "io.kubernetes.cri.image-name", "io.kubernetes.cri-o.ImageName", "io.kubernetes.pod.name", "nerdctl/name", "com.docker.compose.service"];
            let annotations: BTreeMap<&str, &String> = keys.into_iter().zip(&values).collect();
            let bytes = serde_json::to_vec(&serde_json::json!({ "annotations": annotations })).unwrap();
            let found = every(&bytes);
            prop_assert!(found.len() >= 3);
            for Metadata { name, image, image_id, pod_name, pod_namespace, pod_uid, labels } in found {
                let texts = [name, image, image_id, pod_name, pod_namespace, pod_uid];
                prop_assert!(texts.iter().flatten().chain(labels.values()).all(|text| (1..=TEXT_MAX).contains(&text.len())));
            }
        }
    }
}
