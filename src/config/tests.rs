//! What the command line takes and what it refuses.

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    given: Given,
}

fn read(line: &str) -> Result<Config, Vec<ConfigError>> {
    let words = ["run"].into_iter().chain(line.split_whitespace());
    let line = Line::try_parse_from(words);
    line.unwrap_or_else(|error| panic!("clap refuses it: {error}"))
        .given
        .into_config()
}

fn refusal(line: &str) -> String {
    let errors = read(line).expect_err(line);
    errors
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

#[test]
fn the_defaults_are_valid_and_those_of_the_design() {
    let config = read("").expect("defaults are valid");
    assert_eq!(config.routes[0].listen.port(), 8080);
    assert_eq!((config.admin.port(), config.member.port()), (9090, 9190));
    assert_eq!(config.upstream_ready, UpstreamReady::Tcp);
    assert_eq!(config.election.lease_duration, Duration::from_secs(15));
    assert!(config.cluster.is_some());
    let named = read("--target deployment/bert").expect("valid").cluster;
    assert_eq!(
        named.and_then(|cluster| cluster.target).as_deref(),
        Some("bert")
    );
    assert!(read("--no-cluster").expect("valid").cluster.is_none());
}

#[test]
fn the_servers_metrics_are_where_the_flag_says() {
    assert_eq!(read("").expect("valid").server_metrics, None);
    let config = read("--server-metrics http://127.0.0.1:8002/metrics").expect("valid");
    let expected = "http://127.0.0.1:8002".parse().expect("a URL");
    assert_eq!(config.server_metrics, Some(expected));
    let wrong = Line::try_parse_from(["run", "--server-metrics", "https://model"]);
    let wrong = wrong.expect_err("TLS is not spoken").to_string();
    assert!(wrong.contains("http://127.0.0.1:8002/metrics"), "{wrong}");
}

#[test]
fn a_limit_has_a_queue_and_a_queue_a_limit() {
    assert_eq!(read("").expect("valid").limit, None);
    let given = |line| read(line).expect(line).limit.expect("a limit");
    let limit = given("--max-concurrent 8");
    assert_eq!((limit.concurrent, limit.queued), (8, 80));
    assert_eq!(limit.wait, Duration::from_secs(30));
    let limit = given("--max-concurrent 8 --max-queued 0 --queue-timeout 2s");
    assert_eq!((limit.queued, limit.wait), (0, Duration::from_secs(2)));
    assert!(refusal("--max-queued 8").contains("without --max-concurrent"));
    assert!(refusal("--max-concurrent 0").contains("no request pass"));
    let late = refusal("--max-concurrent 1 --queue-timeout 0s");
    assert!(late.contains("--queue-timeout"), "{late}");
}

#[test]
fn listeners_and_upstreams_come_in_pairs_in_their_order() {
    let line =
        "--listen 0.0.0.0:1 --listen 0.0.0.0:2 --upstream 127.0.0.1:3 --upstream 127.0.0.1:4";
    let routes = read(line).expect("valid").routes;
    let ports: Vec<_> = routes
        .iter()
        .map(|route| {
            (
                route.listen.port(),
                route.upstream.address().map(|it| it.port()),
            )
        })
        .collect();
    assert_eq!(ports, [(1, Some(3)), (2, Some(4))]);
    let routes = read("--upstream unix:/run/model.sock")
        .expect("valid")
        .routes;
    assert_eq!(routes[0].upstream.address(), None);
    assert!(refusal("--listen 0.0.0.0:1,0.0.0.0:2").contains("2 of --listen but 1 of --upstream"));
}

#[test]
fn what_cannot_be_honoured_is_refused_with_its_value_and_remedy() {
    let check = |line: &str, expected: &str| {
        let refusal = refusal(line);
        assert!(refusal.contains(expected), "{line}: {refusal}");
    };
    check(
        "--upstream 127.0.0.1:8080",
        "--upstream 127.0.0.1:8080 is where --listen takes requests",
    );
    check(
        "--admin 0.0.0.0:8080",
        "--listen and --admin are both 0.0.0.0:8080",
    );
    check(
        "--upstream-protocol h3",
        "`h3` is not spoken (auto, http1 or h2c)",
    );
    check("--upstream-ready http:health", "`http:health` is no probe");
    check("--upstream-ready udp", "`udp` is no probe");
    check(
        "--lease-duration 10ms",
        "--lease-duration 10ms is out of range (1s to 1h)",
    );
    // All at once, not one a try.
    check(
        "--upstream-protocol x --upstream-ready y",
        "`x` is not spoken",
    );
    check(
        "--upstream-protocol x --upstream-ready y",
        "`y` is no probe",
    );
}

#[test]
fn ports_left_to_the_system_never_meet() {
    assert!(read("--listen 127.0.0.1:0 --admin 127.0.0.1:0 --member 127.0.0.1:0").is_ok());
}
