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

/// Follows the file for as long as the sidecar lives. `sought`: it was looked at once.
pub(super) async fn follow(
    path: PathBuf,
    policy: watch::Sender<Option<Arc<Policy>>>,
    sought: watch::Sender<bool>,
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
        sought.send_replace(true);
        clock.sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    /// Waits for what a look at the file must bring about.
    async fn until(clock: &Clock, reached: impl Fn() -> bool) {
        let start = clock.instant();
        while !reached() {
            assert!(clock.instant().since(start) < 100 * LOOK, "not seen");
            clock.sleep(LOOK / 50).await;
        }
    }

    #[tokio::test]
    async fn a_policy_that_breaks_while_running_leaves_the_last_good_one_and_says_so() {
        let path = std::env::temp_dir().join(format!("sidescale-{}.yaml", std::process::id()));
        let clock = Clock::scaled(Timestamp::default(), 100.0);
        let faults = Faults::new(clock.clone());
        let (policy, sought) = (watch::Sender::new(None), watch::Sender::new(false));
        let write = |text: &str| std::fs::write(&path, text).expect("a folder for such files");
        let text = || faults.text(Fault::Policy).unwrap_or_default();
        let most = || {
            policy
                .borrow()
                .as_deref()
                .map(|policy: &Policy| policy.max_replicas)
        };
        std::fs::remove_file(&path).ok();
        let follow = follow(
            path.clone(),
            policy.clone(),
            sought.clone(),
            faults.clone(),
            clock.clone(),
        );
        let story = async {
            until(&clock, || *sought.borrow()).await;
            assert!(text().contains("cannot be read"), "{}", text());
            assert_eq!(most(), None);
            write("maxReplicas: 3\n");
            until(&clock, || most() == Some(3)).await;
            until(&clock, || text().is_empty()).await;
            write("maxReplicas: many\n");
            until(&clock, || text().contains("the last good policy stays")).await;
            assert!(
                text().contains("maxReplicas") && text().contains("many"),
                "{}",
                text()
            );
            assert_eq!(most(), Some(3));
            write("maxReplicas: 4\n");
            until(&clock, || most() == Some(4) && text().is_empty()).await;
        };
        tokio::select! {
            () = follow => unreachable!("it follows for ever"),
            () = story => {}
        }
        std::fs::remove_file(&path).ok();
    }
}
