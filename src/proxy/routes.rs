//! Which requests are carried but are no load: health checks and scrapes.

/// Paths that are not counted. A pattern is a whole path, or a prefix that ends with `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uncounted {
    exact: Vec<String>,
    prefixes: Vec<String>,
}

// === impl Uncounted ===

impl Default for Uncounted {
    /// The health and metrics paths of vLLM, TGI, Triton and of Kubernetes' habit. A scrape every 15 s would
    /// otherwise keep an idle server from looking idle.
    fn default() -> Self {
        Self::new([
            "/health",
            "/healthz",
            "/readyz",
            "/metrics",
            "/ping",
            "/v2/health/*",
        ])
    }
}

impl Uncounted {
    /// These patterns and no others.
    pub fn new<P: AsRef<str>>(patterns: impl IntoIterator<Item = P>) -> Self {
        let (mut exact, mut prefixes) = (Vec::new(), Vec::new());
        for pattern in patterns {
            match pattern.as_ref().strip_suffix('*') {
                Some(prefix) => prefixes.push(prefix.to_owned()),
                None => exact.push(pattern.as_ref().to_owned()),
            }
        }
        Self { exact, prefixes }
    }

    /// Whether a request to `path` (without the query) is no load.
    pub fn contains(&self, path: &str) -> bool {
        self.exact.iter().any(|exact| exact == path)
            || self.prefixes.iter().any(|prefix| path.starts_with(prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_checks_are_no_load_and_inference_is() {
        let uncounted = Uncounted::default();
        for path in ["/health", "/metrics", "/v2/health/ready", "/v2/health/"] {
            assert!(uncounted.contains(path), "{path}");
        }
        for path in ["/", "/v1/completions", "/healthy", "/v2/models", "/health/"] {
            assert!(!uncounted.contains(path), "{path}");
        }
    }

    #[test]
    fn patterns_given_replace_the_default() {
        let uncounted = Uncounted::new(["/up"]);
        assert!(uncounted.contains("/up"));
        assert!(!uncounted.contains("/health"));
    }
}
