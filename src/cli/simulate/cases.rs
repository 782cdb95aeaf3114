//! `sidescale simulate --cases`.

use std::path::Path;

use super::{Bar, Failure, Simulate, print, write_whole};
use crate::simulate::{self, Job, Scored, Summary, read_cases};

// === impl Simulate ===

impl Simulate {
    /// Plays every case; nothing is played when any is wrong, and nothing written before all are played.
    pub(super) fn play_cases(&self, file: &Path) -> Result<(), Failure> {
        self.world.check_bounds()?;
        let contestants = self.contestants()?;
        let cases = read_cases(file).map_err(|error| Failure::Input(error.into()))?;
        let jobs: Vec<Job> = cases
            .iter()
            .map(|case| Job {
                file: case.trace.clone(),
                bin: None,
                settings: self
                    .world
                    .settings(case.pod_rps, case.cold_start, case.warmup),
            })
            .collect();
        let mut bar = Bar::new();
        let speak = |progress| bar.show(progress);
        let played = simulate::simulate(&jobs, &contestants, |outcome| outcome.scores, speak);
        bar.clear();
        let scores = played.map_err(|error| Failure::Input(error.into()))?;
        let scored = cases.into_iter().zip(scores);
        let summary = Summary::new(
            scored
                .map(|(case, scores)| Scored { case, scores })
                .collect(),
        );
        if let Some(path) = &self.json {
            let json = summary
                .json()
                .map_err(|error| Failure::Other(error.into()))?;
            write_whole("--json", path, &(json + "\n"))?;
        }
        if let Some(path) = &self.table {
            write_whole("--table", path, &summary.markdown())?;
        }
        if let Some(path) = &self.picture {
            write_whole("--picture", path, &summary.picture())?;
        }
        print(&summary.text())
    }
}
