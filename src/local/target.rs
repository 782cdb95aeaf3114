//! What a request is about: its path and query, taken apart.

use std::collections::BTreeMap;

use http::Method;

use super::kind::Kind;
use super::refusal::Refusal;

/// The place that a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Objects(Place),
    /// `/version`, `/healthz`, and the lists of what is served.
    Server(Vec<String>),
}

/// Objects of one kind, or one of them, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) kind: Kind,
    /// Empty for all namespaces, and for kinds that have none.
    pub(super) namespace: String,
    /// Empty for all objects.
    pub(super) name: String,
    /// Empty for the object itself.
    pub(super) subresource: String,
}

/// What is to be done, in the words that rights use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

/// The query, each parameter's last value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Query(BTreeMap<String, String>);

// === impl Target ===

impl Target {
    /// Takes a path apart.
    pub(super) fn parse(path: &str) -> Result<Self, Refusal> {
        let segments: Vec<String> = path
            .split('/')
            .filter(|segment| !segment.is_empty())
            .map(|segment| unescape(segment, false))
            .collect();
        let words: Vec<&str> = segments.iter().map(String::as_str).collect();
        let (group, version, rest) = match words.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
            ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
            _ => return Ok(Self::Server(segments)),
        };
        Place::parse(group, version, rest)
            .map(Self::Objects)
            .ok_or(Refusal::NoSuchResource)
    }
}

// === impl Place ===

impl Place {
    fn parse(group: &str, version: &str, rest: &[&str]) -> Option<Self> {
        let (namespace, rest) = match rest {
            // `/namespaces/x` and `/namespaces/x/status` are the namespace itself.
            ["namespaces", _name] | ["namespaces", _name, "status"] => ("", rest),
            ["namespaces", namespace, rest @ ..] => (*namespace, rest),
            _ => ("", rest),
        };
        let (plural, name, subresource) = match rest {
            [plural] => (*plural, "", ""),
            [plural, name] => (*plural, *name, ""),
            [plural, name, subresource] => (*plural, *name, *subresource),
            _ => return None,
        };
        let kind = Kind::find(group, version, plural)?;
        let facts = kind.facts();
        let served = match subresource {
            "" => true,
            "status" => facts.status,
            "scale" => facts.scale,
            "binding" => kind == Kind::Pod,
            _ => false,
        };
        let spaced = facts.namespaced || namespace.is_empty();
        let named = name.is_empty() || !facts.namespaced || !namespace.is_empty();
        (served && spaced && named).then(|| Self {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource: subresource.to_owned(),
        })
    }

    /// As rights name it: `deployments`, `deployments/scale`.
    pub(super) fn resource(&self) -> String {
        let plural = self.kind.facts().plural;
        if self.subresource.is_empty() {
            plural.to_owned()
        } else {
            format!("{plural}/{}", self.subresource)
        }
    }
}

// === impl Verb ===

impl Verb {
    /// The verb of a request on `place`.
    pub(super) fn of(method: &Method, place: &Place, query: &Query) -> Result<Self, Refusal> {
        let named = !place.name.is_empty();
        let whole = place.subresource.is_empty();
        match (method.as_str(), named) {
            ("GET", false) if query.flag("watch") => Ok(Self::Watch),
            ("GET", false) => Ok(Self::List),
            ("GET", true) if place.subresource != "binding" => Ok(Self::Get),
            ("POST", false) => Ok(Self::Create),
            ("POST", true) if place.subresource == "binding" => Ok(Self::Create),
            ("PUT", true) if place.subresource != "binding" => Ok(Self::Update),
            ("PATCH", true) if place.subresource != "binding" => Ok(Self::Patch),
            ("DELETE", true) if whole => Ok(Self::Delete),
            ("DELETE", false) if !place.kind.facts().namespaced || !place.namespace.is_empty() => {
                Ok(Self::DeleteCollection)
            }
            _ => Err(Refusal::MethodNotAllowed),
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        }
    }
}

// === impl Query ===

impl Query {
    pub(super) fn parse(text: &str) -> Self {
        Self(
            text.split('&')
                .filter(|pair| !pair.is_empty())
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(name, value)| (unescape(name, true), unescape(value, true)))
                .collect(),
        )
    }

    pub(super) fn text(&self, name: &str) -> &str {
        self.0.get(name).map(String::as_str).unwrap_or_default()
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        matches!(self.text(name), "true" | "1")
    }

    /// A number; nothing if it is absent or empty.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Refusal> {
        let text = self.text(name);
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|_not_a_number| {
            Refusal::Internal(format!(
                "{name}: Invalid value: \"{text}\": strconv.ParseUint: parsing \"{text}\": invalid syntax"
            ))
        })
    }
}

/// Undoes percent-encoding, and `+` for a space where the text is a form's.
fn unescape(text: &str, form: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        if let Some(byte) = escaped {
            out.push(byte);
            at += 3;
        } else {
            let space = form && bytes[at] == b'+';
            out.push(if space { b' ' } else { bytes[at] });
            at += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(path: &str) -> Option<(Kind, String, String, String)> {
        match Target::parse(path) {
            Ok(Target::Objects(place)) => {
                Some((place.kind, place.namespace, place.name, place.subresource))
            }
            Ok(Target::Server(_)) | Err(_) => None,
        }
    }

    #[test]
    fn paths_name_kinds_objects_and_parts() {
        let check = |path: &str, kind, namespace: &str, name: &str, part: &str| {
            let expected = (kind, namespace.to_owned(), name.to_owned(), part.to_owned());
            assert_eq!(place(path), Some(expected), "{path}");
        };
        check("/api/v1/pods", Kind::Pod, "", "", "");
        check(
            "/api/v1/namespaces/n/pods/p/status",
            Kind::Pod,
            "n",
            "p",
            "status",
        );
        check("/api/v1/namespaces/n", Kind::Namespace, "", "n", "");
        check(
            "/api/v1/namespaces/n/status",
            Kind::Namespace,
            "",
            "n",
            "status",
        );
        check(
            "/apis/apps/v1/namespaces/n/deployments/d/scale",
            Kind::Deployment,
            "n",
            "d",
            "scale",
        );
        check("/api/v1/nodes/x", Kind::Node, "", "x", "");
        for path in [
            "/api/v1/foos",
            "/api/v1/pods/p",
            "/api/v1/namespaces/n/pods/p/scale",
            "/apis/apps/v2/deployments",
            "/api/v1/namespaces/n/nodes",
        ] {
            assert_eq!(Target::parse(path), Err(Refusal::NoSuchResource), "{path}");
        }
        assert_eq!(
            Target::parse("/apis/apps/v1"),
            Ok(Target::Server(vec![
                "apis".to_owned(),
                "apps".to_owned(),
                "v1".to_owned()
            ]))
        );
    }

    #[test]
    fn a_query_is_unescaped() {
        let query = Query::parse("labelSelector=a+in+%28b%2Cc%29&watch=1&limit=");
        assert_eq!(query.text("labelSelector"), "a in (b,c)");
        assert!(query.flag("watch"));
        assert_eq!(query.number("limit"), Ok(None));
        assert!(
            Query::parse("resourceVersion=abc")
                .number("resourceVersion")
                .is_err()
        );
    }
}
