//! What is counted, whatever becomes of a request.

use bytes::Bytes;
use futures_util::future::join_all;
use http::Request;
use proptest::prelude::*;
use sidescale::proxy::Reading;

use crate::http2;
use crate::model_server::ModelServer;
use crate::pod::{Client, Pod, chunk, exchange, full, within};

/// What a client may do, and what may be done to it.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Answered,
    Echoed,
    LeavesBeforeTheHead,
    LeavesTheStream,
    CutUpstream,
    FailedByTheServer,
    Malformed,
    Probed,
}

const FATES: [Fate; 8] = [
    Fate::Answered,
    Fate::Echoed,
    Fate::LeavesBeforeTheHead,
    Fate::LeavesTheStream,
    Fate::CutUpstream,
    Fate::FailedByTheServer,
    Fate::Malformed,
    Fate::Probed,
];

async fn meet(fate: Fate, pod: &Pod, server: &ModelServer) {
    // One at a time between the announcement of a stream and its request.
    static STREAMS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let mut client = pod.client().await;
    match fate {
        Fate::Answered => drop(client.get("/").await.expect("answered")),
        Fate::Echoed => drop(client.post("/echo", "hello").await.expect("answered")),
        Fate::FailedByTheServer => drop(client.get("/status/500").await.expect("answered")),
        Fate::Probed => drop(client.get("/health").await.expect("answered")),
        Fate::Malformed => {
            let answer = exchange(
                pod.address(),
                "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\nconnection: close\r\n\r\n",
            )
            .await;
            assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        }
        Fate::LeavesBeforeTheHead => {
            let mut waiting = server.waiting();
            let before = *waiting.borrow_and_update();
            tokio::select! {
                _ = client.begin("/hang") => panic!("nobody answers"),
                _ = waiting.wait_for(|count| *count > before) => {}
            }
            client.leave();
        }
        Fate::LeavesTheStream | Fate::CutUpstream => {
            let one = STREAMS.lock().await;
            let mut tokens = server.expect_stream();
            let mut body = client.begin("/stream").await.expect("a head").into_body();
            drop(one);
            tokens.send_data(Bytes::from("one")).await.expect("read");
            chunk(&mut body).await.expect("more").expect("whole");
            if let Fate::CutUpstream = fate {
                tokens.abort("cut".into());
                assert!(chunk(&mut body).await.expect("no end").is_err());
            } else {
                client.leave();
                drop(body);
                while tokens.send_data(Bytes::from("x")).await.is_ok() {}
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Whatever happens to whom and in what company: each request is counted once, and nothing stays in flight.
    #[test]
    fn after_any_mixture_of_faults_the_accounts_add_up(fates in prop::collection::vec(prop::sample::select(&FATES[..]), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let reading = runtime.block_on(async {
            let server = ModelServer::start().await;
            let pod = Pod::ready(server.address).await;
            within(join_all(fates.iter().map(|fate| meet(*fate, &pod, &server)))).await;
            pod.accounted(|now| now.in_flight == 0 && now.arrivals == now.completions + now.failures()).await
        });
        let count = |wanted: fn(&Fate) -> bool| fates.iter().filter(|fate| wanted(fate)).count() as u64;
        let expected = Reading {
            arrivals: count(|fate| !matches!(fate, Fate::Probed)),
            completions: count(|fate| matches!(fate, Fate::Answered | Fate::Echoed | Fate::FailedByTheServer)),
            client_gone: count(|fate| matches!(fate, Fate::LeavesBeforeTheHead | Fate::LeavesTheStream)),
            upstream_failed: count(|fate| matches!(fate, Fate::CutUpstream)),
            refused: count(|fate| matches!(fate, Fate::Malformed)),
            ..reading
        };
        prop_assert_eq!(reading, expected);
    }
}

#[tokio::test]
async fn many_clients_at_once_are_counted_while_they_wait() {
    let server = ModelServer::start().await;
    let pod = Pod::ready(server.address).await;
    pod.accounts.set_overrun_threshold(Some(49));
    let (mut waiting, address) = (server.waiting(), pod.address());
    let clients = (0..50).map(|_client| async move {
        let mut client = Client::connect(address).await.expect("it accepts");
        client.send(Request::post("/hang"), full("x")).await
    });
    tokio::select! {
        _ = join_all(clients) => panic!("nobody answers"),
        count = waiting.wait_for(|count| *count == 50) => drop(count.expect("the server lives")),
    }
    // All fifty have left; the overrun of the fiftieth is still there to be heard.
    within(pod.accounts.overrun()).await;
    let reading = pod.accounted(|now| now.in_flight == 0).await;
    assert_eq!((reading.arrivals, reading.client_gone), (50, 50));
}

/// What may become of a stream of HTTP/2, between a client and a server of it.
#[derive(Clone, Copy, Debug)]
enum StreamFate {
    Answered,
    Echoed,
    AnsweredEarly,
    ResetBeforeTheHead,
    ResetWithinTheResponse,
    CutUpstream,
    NotToBePassedOn,
    Probed,
}

const STREAM_FATES: [StreamFate; 8] = [
    StreamFate::Answered,
    StreamFate::Echoed,
    StreamFate::AnsweredEarly,
    StreamFate::ResetBeforeTheHead,
    StreamFate::ResetWithinTheResponse,
    StreamFate::CutUpstream,
    StreamFate::NotToBePassedOn,
    StreamFate::Probed,
];

async fn meet_in_a_stream(fate: StreamFate, client: &http2::Client, server: &http2::Server) {
    match fate {
        StreamFate::Answered => drop(client.get("/").await.expect("answered")),
        StreamFate::Echoed => drop(client.post("/echo", "hello").await.expect("answered")),
        StreamFate::Probed => drop(client.get("/health").await.expect("answered")),
        StreamFate::AnsweredEarly => {
            let call = client.open(http2::post("/early"), false).await;
            let answer = call.expect("sent").answer().await.expect("answered");
            assert_eq!(answer.status, 413);
        }
        StreamFate::NotToBePassedOn => {
            let call = client.open(Request::connect("model:443"), false).await;
            drop(call.expect("sent").answer().await.expect("answered"));
        }
        StreamFate::ResetBeforeTheHead => {
            let call = client.open(http2::post("/hang"), false).await;
            server.waits_with(1).await;
            drop(call);
        }
        StreamFate::ResetWithinTheResponse | StreamFate::CutUpstream => {
            let cut = matches!(fate, StreamFate::CutUpstream);
            let path = if cut { "/reset/2" } else { "/drip" };
            let mut call = client.open(http2::post(path), false).await.expect("sent");
            let response = within(&mut call.response).await.expect("a head");
            let mut body = response.into_body();
            let one = within(http2::read_frame(&mut body)).await.expect("more");
            assert_eq!(one.expect("whole"), "one");
            if cut {
                call.send("go on").await;
                let cut = within(http2::read_frame(&mut body)).await;
                assert!(cut.expect("no end").is_err());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// The same of streams, all on one connection of the client.
    #[test]
    fn after_any_mixture_of_streams_the_accounts_add_up(fates in prop::collection::vec(prop::sample::select(&STREAM_FATES[..]), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let reading = runtime.block_on(async {
            let server = http2::Server::start().await;
            let pod = Pod::ready(server.address).await;
            let client = http2::Client::connect(pod.address()).await;
            within(join_all(fates.iter().map(|fate| meet_in_a_stream(*fate, &client, &server)))).await;
            let known = fates.iter().filter(|fate| !matches!(fate, StreamFate::Probed)).count() as u64;
            pod.accounted(|now| now.in_flight == 0 && now.arrivals == now.completions + now.failures() && now.arrivals == known).await
        });
        let count = |wanted: fn(&StreamFate) -> bool| fates.iter().filter(|fate| wanted(fate)).count() as u64;
        let completed = |fate: &StreamFate| matches!(fate, StreamFate::Answered | StreamFate::Echoed | StreamFate::AnsweredEarly);
        let expected = Reading {
            completions: count(completed),
            upstream_failed: count(|fate| matches!(fate, StreamFate::CutUpstream)),
            refused: count(|fate| matches!(fate, StreamFate::NotToBePassedOn)),
            client_gone: count(|fate| matches!(fate, StreamFate::ResetBeforeTheHead | StreamFate::ResetWithinTheResponse)),
            ..reading
        };
        prop_assert_eq!(reading, expected);
    }
}
