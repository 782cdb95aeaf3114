//! What each server calls what we want to know.
//!
//! Names are from the servers' own pages, read in November 2026: vLLM `docs/usage/metrics` and `docs/design/metrics`
//! (0.4 to 0.32), `SGLang` `docs/references/production_metrics` and `srt/metrics/collector.py`, TGI `reference/metrics`, Triton
//! `user_guide/metrics`, for TensorRT-LLM in Triton `tensorrtllm_backend`. Two spellings are one here, since exporters and
//! versions differ by them: `:` is `_`, and a counter may end in `_total`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::text::{Line, lines};
use super::{Engine, Sample};

/// Whose families are looked at; all others, and the buckets of these, are passed over.
const PREFIXES: [&str; 5] = ["vllm_", "sglang_", "tgi_", "nv_inference_", "nv_trt_llm_"];

/// Labels of `SGLang` by which ranks differ that work on the same requests; `dp_rank` is not among them.
const RANKS_OF_ONE: [&str; 3] = ["tp_rank", "pp_rank", "moe_ep_rank"];

/// Ends of a request in vLLM that are no whole answer: its client left, or it broke.
const VLLM_FAILURES: [&str; 2] = ["abort", "error"];

/// A text without the families of a server that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no server that is known speaks so (sought: vllm:num_requests_running, sglang:num_running_reqs, tgi_*, \
     nv_inference_request_success; SGLang needs --enable-metrics, TGI shows nothing before its first request, Triton has its \
     metrics on a port of their own, 8002; any other server needs dataPath: proxy)"
)]
pub struct UnknownServer;

/// The lines of the families that are looked at, by name.
struct Families<'a>(BTreeMap<Cow<'a, str>, Vec<Line<'a>>>);

/// Finds out whose metrics `text` is, and reads them.
pub(super) fn sample(text: &str) -> Result<Sample, UnknownServer> {
    let families = Families::of(text);
    // Triton first: its vLLM backend shows some of vLLM's families beside Triton's own, without the requests that ended.
    triton(&families)
        .or_else(|| vllm(&families))
        .or_else(|| sglang(&families))
        .or_else(|| tgi(&families))
        .ok_or(UnknownServer)
}

fn vllm(families: &Families<'_>) -> Option<Sample> {
    let running = families.sum("vllm_num_requests_running")?;
    let is_failure = |line: &Line<'_>| {
        let reason = line.label("finished_reason").unwrap_or_default();
        VLLM_FAILURES.contains(&reason)
    };
    let ended = families.counter("vllm_request_success");
    let failed = total(ended.iter().filter(|line| is_failure(line)));
    Some(Sample {
        engine: Engine::Vllm,
        running: Some(running),
        // Swapped out to make room, before the V1 engine: they wait to run again.
        waiting: families.sum("vllm_num_requests_waiting").unwrap_or(0.0)
            + families.sum("vllm_num_requests_swapped").unwrap_or(0.0),
        // The older name is deprecated since 0.9.2; for some versions both stand there.
        kv_cache: families
            .share("vllm_kv_cache_usage_perc")
            .or_else(|| families.share("vllm_gpu_cache_usage_perc")),
        completed: total(ended) - failed,
        failed,
        request_seconds: families.sum("vllm_e2e_request_latency_seconds_sum"),
    })
}

fn sglang(families: &Families<'_>) -> Option<Sample> {
    let running = families.over_ranks("sglang_num_running_reqs")?;
    // With prefill and decode on different servers, a request waits in a queue of its own at each step.
    let queues = [
        "sglang_num_queue_reqs",
        "sglang_num_grammar_queue_reqs",
        "sglang_num_prefill_prealloc_queue_reqs",
        "sglang_num_prefill_inflight_queue_reqs",
        "sglang_num_decode_prealloc_queue_reqs",
        "sglang_num_decode_transfer_queue_reqs",
    ];
    Some(Sample {
        engine: Engine::Sglang,
        running: Some(running),
        waiting: queues
            .iter()
            .filter_map(|queue| families.over_ranks(queue))
            .sum(),
        kv_cache: families.share("sglang_token_usage"),
        // What was aborted while it ran is in here, too: `num_aborted_requests` would count it twice.
        completed: total(families.counter("sglang_num_requests")),
        failed: 0.0,
        request_seconds: families.sum("sglang_e2e_request_latency_seconds_sum"),
    })
}

fn tgi(families: &Families<'_>) -> Option<Sample> {
    if !families.has_any("tgi_") {
        return None;
    }
    // Its exporter shows a family from the first time that it is set: what is not there was never set.
    Some(Sample {
        engine: Engine::Tgi,
        running: Some(families.sum("tgi_batch_current_size").unwrap_or(0.0)),
        waiting: families.sum("tgi_queue_size").unwrap_or(0.0),
        kv_cache: None,
        completed: total(families.counter("tgi_request_success")),
        failed: total(families.counter("tgi_request_failure")),
        request_seconds: families
            .sum("tgi_request_duration_sum")
            .or_else(|| families.sum("tgi_request_duration_seconds_sum")),
    })
}

/// An ensemble counts as a request of its own beside those of its parts: nothing in the text tells them apart.
fn triton(families: &Families<'_>) -> Option<Sample> {
    let ended = families.counter("nv_inference_request_success");
    if ended.is_empty() {
        return None;
    }
    let trt = |kind| families.sum_where("nv_trt_llm_request_metrics", "request_type", kind);
    // Active are those that the runtime holds, scheduled those of this step; versions differ in what they fill.
    let trt_running = match (trt("active"), trt("scheduled")) {
        (None, None) => None,
        (active, scheduled) => Some(active.unwrap_or(0.0).max(scheduled.unwrap_or(0.0))),
    };
    let backlog = trt("waiting").or_else(|| families.sum("vllm_num_requests_waiting"));
    let micros = total(families.counter("nv_inference_request_duration_us"));
    Some(Sample {
        engine: Engine::Triton,
        // Triton itself tells only what has not begun.
        running: trt_running.or_else(|| families.sum("vllm_num_requests_running")),
        waiting: backlog.unwrap_or(0.0)
            + families
                .sum("nv_inference_pending_request_count")
                .unwrap_or(0.0),
        kv_cache: families
            .sum_where(
                "nv_trt_llm_kv_cache_block_metrics",
                "kv_cache_block_type",
                "fraction",
            )
            .or_else(|| families.share("vllm_gpu_cache_usage_perc"))
            .map(|share| share.min(1.0)),
        completed: total(ended),
        failed: total(families.counter("nv_inference_request_failure")),
        request_seconds: Some(micros / 1e6),
    })
}

// === impl Families ===

impl<'a> Families<'a> {
    fn of(text: &'a str) -> Self {
        let mut families: BTreeMap<Cow<'a, str>, Vec<Line<'a>>> = BTreeMap::new();
        for line in lines(text) {
            // What is not a number of things says nothing.
            if !line.value.is_finite() || line.value < 0.0 || line.name.ends_with("_bucket") {
                continue;
            }
            let name = if line.name.contains(':') {
                Cow::Owned(line.name.replace(':', "_"))
            } else {
                Cow::Borrowed(line.name)
            };
            if PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
                families.entry(name).or_default().push(line);
            }
        }
        Self(families)
    }

    fn lines(&self, name: &str) -> &[Line<'a>] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// The lines of a counter, by either of its names.
    fn counter(&self, name: &str) -> &[Line<'a>] {
        match self.lines(name) {
            [] => self.lines(&format!("{name}_total")),
            lines => lines,
        }
    }

    fn has_any(&self, prefix: &str) -> bool {
        self.0.keys().any(|name| name.starts_with(prefix))
    }

    fn sum(&self, name: &str) -> Option<f64> {
        match self.lines(name) {
            [] => None,
            lines => Some(total(lines)),
        }
    }

    fn sum_where(&self, name: &str, label: &str, value: &str) -> Option<f64> {
        let lines = self.lines(name).iter();
        let mut lines = lines
            .filter(|line| line.label(label) == Some(value))
            .peekable();
        lines.peek()?;
        Some(total(lines))
    }

    /// The mean of a share over engines and ranks, which have caches of the same size.
    fn share(&self, name: &str) -> Option<f64> {
        let lines = self.lines(name);
        let sum = self.sum(name)?;
        Some((sum / lines.len() as f64).min(1.0))
    }

    /// The sum over what works on different requests. With `--enable-metrics-for-all-schedulers` every rank of a tensor-parallel
    /// group shows the requests of the group: eight ranks with four requests are four.
    fn over_ranks(&self, name: &str) -> Option<f64> {
        let mut groups: BTreeMap<Vec<(&str, &str)>, f64> = BTreeMap::new();
        for line in self.lines(name) {
            let labels = line.labels();
            let group = labels.filter(|(label, _)| !RANKS_OF_ONE.contains(label));
            let most = groups.entry(group.collect()).or_default();
            *most = most.max(line.value);
        }
        (!groups.is_empty()).then(|| groups.values().sum())
    }
}

fn total<'l, 'a: 'l>(lines: impl IntoIterator<Item = &'l Line<'a>>) -> f64 {
    lines.into_iter().map(|line| line.value).sum()
}

#[cfg(test)]
mod tests;
