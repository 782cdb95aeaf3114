//! What the program tells about itself: logs, and the text of `/metrics`.
//!
//! Nothing here is counted: a scrape reads [`Readings`] that the app takes at that moment, so no metric is touched on the
//! request path. Values of the fleet (from `sidescale_replicas_desired` on) come from the leader alone; elsewhere they are
//! absent, not zero.
//!
//! | metric | kind | meaning |
//! |---|---|---|
//! | `sidescale_build_info` | info | The version that runs |
//! | `sidescale_ready` | gauge | Whether this pod takes requests: its server answers and it is not draining; of a lead: whether it takes part in the election |
//! | `sidescale_phase` | gauge | 1 for the phase this pod is in (serving, draining, drained), 0 for the others |
//! | `sidescale_requests_received_total` | counter | Requests that arrived |
//! | `sidescale_requests_total` | counter | Requests that ended, by outcome |
//! | `sidescale_request_heads_refused_total` | counter | Requests refused for their head, by reason; most of them never became a request that is counted |
//! | `sidescale_responses_total` | counter | Responses sent, by status class |
//! | `sidescale_requests_in_flight` | gauge | Requests in flight, waiting ones included |
//! | `sidescale_requests_waiting` | gauge | Requests that wait in the sidecar for a place at the server (--max-concurrent) |
//! | `sidescale_client_connections` | gauge | Connections of clients that stand and were not retired |
//! | `sidescale_client_connections_retired_total` | counter | Connections of clients ended so that these find new pods |
//! | `sidescale_requests_in_flight_seconds_total` | counter | Integral of the requests in flight over time |
//! | `sidescale_request_duration_seconds` | histogram | Times from arrival to end, of the requests completed |
//! | `sidescale_first_byte_seconds` | histogram | Times from arrival to the response's head, of the requests that the server answered |
//! | `sidescale_request_bytes_total` | counter | Bytes of request bodies passed on |
//! | `sidescale_response_bytes_total` | counter | Bytes of response bodies passed on |
//! | `sidescale_response_frames_total` | counter | Pieces in which the bytes of response bodies came: of a stream, roughly its chunks |
//! | `sidescale_server_info` | info | The inference server whose own metrics are read; absent while none are |
//! | `sidescale_server_requests_total` | counter | Requests that ended on the server by its own metrics, by outcome |
//! | `sidescale_server_requests_running` | gauge | Requests that the server works on by its own metrics; absent where it does not tell |
//! | `sidescale_server_requests_waiting` | gauge | Requests that wait on the server by its own metrics |
//! | `sidescale_server_kv_cache_utilization_ratio` | gauge | Share of the server's KV cache in use by its own metrics, 0 to 1; absent where it does not tell |
//! | `sidescale_gpu_devices` | gauge | GPUs read; absent without a readable one |
//! | `sidescale_gpu_utilization_ratio` | gauge | Mean utilisation of this pod's GPUs, 0 to 1 |
//! | `sidescale_gpu_memory_used_bytes` | gauge | Memory in use on this pod's GPUs |
//! | `sidescale_gpu_memory_bytes` | gauge | Memory of this pod's GPUs |
//! | `sidescale_gpu_power_watts` | gauge | Power drawn by this pod's GPUs |
//! | `sidescale_cpu_limit_cores` | gauge | CPU limit of this container in cores; absent without one |
//! | `sidescale_cpu_throttled_seconds_total` | counter | Time for which that limit has stopped every thread of this container |
//! | `sidescale_member_streams` | gauge | Leaders' streams that stand at this pod's member port |
//! | `sidescale_member_impostors_total` | counter | Leaders refused because their token did not match the Lease |
//! | `sidescale_member_refused_total` | counter | Streams closed for what they sent |
//! | `sidescale_member_stale_orders_total` | counter | Orders of a deposed leader, not obeyed |
//! | `sidescale_member_not_understood_total` | counter | Lines of leaders that were not understood |
//! | `sidescale_leader` | gauge | Whether this pod leads |
//! | `sidescale_term` | gauge | The highest term this pod knows of |
//! | `sidescale_leader_changes_total` | counter | Changes of the leader that this pod has seen |
//! | `sidescale_api_conflicts_total` | counter | Writes that the API server refused because the object had moved on |
//! | `sidescale_api_errors_total` | counter | Requests to the API server that failed otherwise |
//! | `sidescale_faults_total` | counter | Faults since the start, by kind |
//! | `sidescale_fault` | gauge | Whether a fault of this kind stands now |
//! | `sidescale_replicas_desired` | gauge | Replicas that the last plan asks for |
//! | `sidescale_replicas_spec` | gauge | spec.replicas of the Deployment |
//! | `sidescale_replicas_ready` | gauge | Pods that can serve |
//! | `sidescale_replicas_starting` | gauge | Pods on their way to their first Ready |
//! | `sidescale_replicas_unknown` | gauge | Ready pods whose load is not known |
//! | `sidescale_scale_writes_total` | counter | Changes of spec.replicas made by this leader, by direction |
//! | `sidescale_fleet_arrivals_per_second` | gauge | Requests that arrive at the fleet each second |
//! | `sidescale_fleet_requests_in_flight` | gauge | Requests in flight over the reporting pods |
//! | `sidescale_forecast_arrivals_per_second` | gauge | Arrivals forecast for one lead time ahead: point, and the upper quantile |
//! | `sidescale_forecast_trust_ratio` | gauge | How far the forecast's own record lets it be trusted, 0 to 1 |
//! | `sidescale_lead_time_seconds` | gauge | How long a new pod is expected to take until it answers |

mod exposition;
mod families;
mod family;
mod logs;
mod readings;

pub use exposition::{CONTENT_TYPE, render};
pub use logs::{BadFilter, init_logs};
pub use readings::{Connections, Fault, Fleet, Leadership, MemberPort, Readings, Requests, Server};
