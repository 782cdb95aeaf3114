//! The policy file: read at the start, read again when it changes; the last good one stays.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::info;

use super::faults::{Fault, Faults};
use crate::causes::chain;
use crate::clock::Clock;
use crate::policy::{self, Policy};

/// A mounted ConfigMap changes by a renamed link, which no file notification crosses reliably; the kubelet itself
/// takes up to a minute to bring a change, so looking every five seconds adds little.
const LOOK: Duration = Duration::from_secs(5);

/// Why there is no new policy.
#[derive(Debug, thiserror::Error)]
pub enum PolicyFileError {
    /// The file cannot be read.
    #[error("policy {} cannot be read (mount it or give --policy FILE; until then nothing is scaled)", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The file is read and refused.
    #[error("policy {} is refused", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// All that is wrong with it.
        #[source]
        source: policy::PolicyError,
    },
}

/// Reads the file once.
pub(super) async fn read(path: &Path) -> Result<(String, Policy), PolicyFileError> {
    let text = tokio::fs::read_to_string(path)
        .await
        .map_err(|source| PolicyFileError::Read {
            path: path.to_owned(),
            source,
        })?;
    match policy::read(&text) {
        Ok(policy) => Ok((text, policy)),
        Err(source) => Err(PolicyFileError::Refused {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Follows the file for as long as the sidecar lives.
pub(super) async fn follow(
    path: PathBuf,
    policy: watch::Sender<Option<Arc<Policy>>>,
    faults: Faults,
    clock: Clock,
) {
    let mut last = None;
    loop {
        match read(&path).await {
            Ok((text, read)) => {
                faults.clear(Fault::Policy);
                if last.as_ref() != Some(&text) {
                    info!(path = %path.display(), policy = ?read, "policy");
                    policy.send_replace(Some(Arc::new(read)));
                    last = Some(text);
                }
            }
            Err(error) => {
                let kept = if policy.borrow().is_some() {
                    "; the last good policy stays"
                } else {
                    ""
                };
                let text = format!("{}{kept}", chain(&error));
                faults.raise(Fault::Policy, text);
            }
        }
        clock.sleep(LOOK).await;
    }
}
