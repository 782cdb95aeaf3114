//! Texts as the servers' pages show them, with what is to be read out of them.

use super::*;

fn read(text: &str) -> Sample {
    sample(text).expect("its server is known")
}

/// vLLM's V1 engine, two of them (data parallel).
const VLLM: &str = r#"
# HELP python_gc_objects_collected_total Objects collected during gc
# TYPE python_gc_objects_collected_total counter
python_gc_objects_collected_total{generation="0"} 12031.0
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"} 7.0
vllm:num_requests_running{engine="1",model_name="meta-llama/Llama-3.1-8B-Instruct"} 5.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"} 3.0
vllm:num_requests_waiting{engine="1",model_name="meta-llama/Llama-3.1-8B-Instruct"} 0.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct",reason="capacity"} 3.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"} 0.6
vllm:kv_cache_usage_perc{engine="1",model_name="meta-llama/Llama-3.1-8B-Instruct"} 0.2
vllm:gpu_cache_usage_perc{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"} 0.9
# TYPE vllm:request_success_total counter
vllm:request_success_total{engine="0",finished_reason="stop",model_name="meta-llama/Llama-3.1-8B-Instruct"} 100.0
vllm:request_success_total{engine="0",finished_reason="length",model_name="meta-llama/Llama-3.1-8B-Instruct"} 20.0
vllm:request_success_total{engine="0",finished_reason="abort",model_name="meta-llama/Llama-3.1-8B-Instruct"} 4.0
vllm:request_success_total{engine="1",finished_reason="stop",model_name="meta-llama/Llama-3.1-8B-Instruct"} 80.0
vllm:request_success_total{engine="1",finished_reason="error",model_name="meta-llama/Llama-3.1-8B-Instruct"} 1.0
vllm:request_success_created{engine="0",finished_reason="stop",model_name="meta-llama/Llama-3.1-8B-Instruct"} 1.7e+09
# TYPE vllm:e2e_request_latency_seconds histogram
vllm:e2e_request_latency_seconds_bucket{engine="0",le="0.3",model_name="meta-llama/Llama-3.1-8B-Instruct"} 9.0
vllm:e2e_request_latency_seconds_bucket{engine="0",le="+Inf",model_name="meta-llama/Llama-3.1-8B-Instruct"} 124.0
vllm:e2e_request_latency_seconds_count{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"} 124.0
vllm:e2e_request_latency_seconds_sum{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"} 310.5
vllm:e2e_request_latency_seconds_sum{engine="1",model_name="meta-llama/Llama-3.1-8B-Instruct"} 200.0
"#;

#[test]
fn vllm_is_summed_over_its_engines_and_ends() {
    let expected = Sample {
        engine: Engine::Vllm,
        running: Some(12.0),
        waiting: 3.0,
        kv_cache: Some(0.4),
        completed: 200.0,
        failed: 5.0,
        request_seconds: Some(510.5),
    };
    assert_eq!(read(VLLM), expected);
    assert!((expected.in_flight() - 15.0).abs() < 1e-9);
}

#[test]
fn vllm_before_its_v1_engine_swaps_and_has_another_name_for_its_cache() {
    let old = read(
        r#"
vllm:num_requests_running{model_name="m"} 2.0
vllm:num_requests_swapped{model_name="m"} 1.0
vllm:num_requests_waiting{model_name="m"} 4.0
vllm:gpu_cache_usage_perc{model_name="m"} 0.87
vllm:cpu_cache_usage_perc{model_name="m"} 0.11
"#,
    );
    assert_eq!((old.running, old.waiting), (Some(2.0), 5.0));
    assert_eq!((old.kv_cache, old.completed), (Some(0.87), 0.0));
    assert_eq!(old.request_seconds, None);
}

/// `SGLang` with two data-parallel ranks of two tensor-parallel ranks each, all of which show their metrics.
const SGLANG: &str = r#"
# HELP sglang:num_running_reqs The number of running requests.
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{dp_rank="0",engine_type="unified",model_name="glm",pp_rank="0",tp_rank="0"} 6.0
sglang:num_running_reqs{dp_rank="0",engine_type="unified",model_name="glm",pp_rank="0",tp_rank="1"} 6.0
sglang:num_running_reqs{dp_rank="1",engine_type="unified",model_name="glm",pp_rank="0",tp_rank="2"} 3.0
sglang:num_running_reqs{dp_rank="1",engine_type="unified",model_name="glm",pp_rank="0",tp_rank="3"} 3.0
sglang:num_queue_reqs{dp_rank="0",engine_type="unified",model_name="glm",pp_rank="0",tp_rank="0"} 2.0
sglang:num_grammar_queue_reqs{dp_rank="0",engine_type="unified",model_name="glm",pp_rank="0",tp_rank="0"} 1.0
sglang:token_usage{dp_rank="0",engine_type="unified",model_name="glm",pp_rank="0",tp_rank="0"} 0.28
sglang:token_usage{dp_rank="1",engine_type="unified",model_name="glm",pp_rank="0",tp_rank="2"} 0.48
sglang:num_requests_total{engine_type="unified",model_name="glm"} 12345.0
sglang:num_aborted_requests_total{engine_type="unified",model_name="glm"} 7.0
sglang:e2e_request_latency_seconds_sum{engine_type="unified",model_name="glm"} 8000.25
"#;

#[test]
fn sglangs_ranks_that_work_on_the_same_requests_count_once() {
    let expected = Sample {
        engine: Engine::Sglang,
        running: Some(9.0),
        waiting: 3.0,
        kv_cache: Some(0.38),
        completed: 12_345.0,
        failed: 0.0,
        request_seconds: Some(8_000.25),
    };
    assert_eq!(read(SGLANG), expected);
    // As it comes out of exporters that keep to the letters of Prometheus' own names.
    assert_eq!(read(&SGLANG.replace("sglang:", "sglang_")), expected);
}

/// TGI 3, whose counters have no suffix.
const TGI: &str = r#"
# TYPE tgi_request_count counter
tgi_request_count 61
# TYPE tgi_request_success counter
tgi_request_success{method="generate"} 40
tgi_request_success{method="generate_stream"} 12
# TYPE tgi_request_failure counter
tgi_request_failure{err="overloaded"} 2
tgi_request_failure{err="validation"} 1
# TYPE tgi_queue_size gauge
tgi_queue_size 2
# TYPE tgi_batch_current_size gauge
tgi_batch_current_size 4
# TYPE tgi_request_duration histogram
tgi_request_duration_bucket{le="0.5"} 10
tgi_request_duration_sum 130.5
tgi_request_duration_count 52
"#;

#[test]
fn tgi_is_summed_over_its_methods_and_errors() {
    let expected = Sample {
        engine: Engine::Tgi,
        running: Some(4.0),
        waiting: 2.0,
        kv_cache: None,
        completed: 52.0,
        failed: 3.0,
        request_seconds: Some(130.5),
    };
    assert_eq!(read(TGI), expected);
    let young = read("tgi_request_count 1\n");
    assert_eq!((young.running, young.waiting), (Some(0.0), 0.0));
}

/// Triton with two models.
const TRITON: &str = r#"
# TYPE nv_inference_request_success counter
nv_inference_request_success{model="bert",version="1"} 161
nv_inference_request_success{model="resnet",version="2"} 39
# TYPE nv_inference_request_failure counter
nv_inference_request_failure{model="bert",reason="REJECTED",version="1"} 2
nv_inference_request_failure{model="bert",reason="OTHER",version="1"} 1
nv_inference_count{model="bert",version="1"} 644
# TYPE nv_inference_pending_request_count gauge
nv_inference_pending_request_count{model="bert",version="1"} 5
nv_inference_pending_request_count{model="resnet",version="2"} 1
# TYPE nv_inference_request_duration_us counter
nv_inference_request_duration_us{model="bert",version="1"} 2500000
nv_inference_request_duration_us{model="resnet",version="2"} 500000
nv_gpu_utilization{gpu_uuid="GPU-1"} 0.5
"#;

#[test]
fn triton_tells_what_waits_and_what_ended_but_not_what_runs() {
    let expected = Sample {
        engine: Engine::Triton,
        running: None,
        waiting: 6.0,
        kv_cache: None,
        completed: 200.0,
        failed: 3.0,
        request_seconds: Some(3.0),
    };
    assert_eq!(read(TRITON), expected);
}

#[test]
fn tritons_backends_tell_more() {
    let trt = r#"
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="active",version="1"} 9
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="scheduled",version="1"} 8
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="waiting",version="1"} 3
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="max",version="1"} 512
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="tensorrt_llm",version="1"} 0.25
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max",model="tensorrt_llm",version="1"} 6239
"#;
    let with_trt = read(&format!("{TRITON}{trt}"));
    assert_eq!((with_trt.running, with_trt.waiting), (Some(9.0), 9.0));
    assert_eq!(with_trt.kv_cache, Some(0.25));
    let vllm =
        "vllm:num_requests_running{model=\"m\"} 4\nvllm:num_requests_waiting{model=\"m\"} 2\n";
    let with_vllm = read(&format!("{vllm}{TRITON}"));
    assert_eq!(with_vllm.engine, Engine::Triton);
    assert_eq!((with_vllm.running, with_vllm.waiting), (Some(4.0), 8.0));
    assert!((with_vllm.completed - 200.0).abs() < 1e-9);
}

#[test]
fn what_is_no_number_of_things_is_passed_over() {
    let odd = read(
        "vllm:num_requests_running{engine=\"0\"} 2\nvllm:num_requests_running{engine=\"1\"} NaN\n\
         vllm:num_requests_waiting -3\nvllm:num_requests_waiting +Inf\nvllm:kv_cache_usage_perc 1.7\n",
    );
    assert_eq!((odd.running, odd.waiting), (Some(2.0), 0.0));
    assert_eq!(odd.kv_cache, Some(1.0));
}

#[test]
fn a_server_that_is_not_known_is_told_what_was_sought() {
    for text in [
        "",
        "<html></html>",
        "llamacpp:requests_processing 3\nprocess_cpu_seconds_total 1\n",
    ] {
        let error = sample(text).expect_err(text).to_string();
        for word in [
            "vllm:num_requests_running",
            "sglang:num_running_reqs",
            "tgi_",
            "nv_inference_request_success",
            "dataPath: proxy",
        ] {
            assert!(error.contains(word), "{error}");
        }
    }
}
