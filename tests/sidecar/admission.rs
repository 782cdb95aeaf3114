//! A server that has as many requests as it can take: the others wait in their order, and not for ever.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::channel::Sender;
use hyper::Response;
use hyper::body::Incoming;
use sidescale::lifecycle::Tasks;
use sidescale::proxy::{Admission, Health, Limit};
use tokio::sync::oneshot;

use crate::model_server::{Failure, ModelServer};
use crate::pod::{Answer, Client, Pod, read, within};

/// In front of `server`, which has one request at once and lets `queued` more wait for up to `wait`.
async fn pod(server: &ModelServer, queued: u32, wait: Duration) -> (Pod, Arc<Admission>) {
    let admission = Arc::new(Admission::new(Some(Limit {
        concurrent: 1,
        queued,
        wait,
    })));
    let shared = Arc::clone(&admission);
    let pod = Pod::start(server.address, |settings| {
        settings.admission = shared;
    });
    pod.becomes(Health::Ready).await;
    (pod, admission)
}

/// A request that the server has begun to answer, and will go on with.
async fn busy(
    pod: &Pod,
    server: &ModelServer,
) -> (Client, Response<Incoming>, Sender<Bytes, Failure>) {
    let tokens = server.expect_stream();
    let mut client = pod.client().await;
    let response = client.begin("/stream").await.expect("a head");
    (client, response, tokens)
}

async fn waits(admission: &Admission, count: u64) {
    let seen = async {
        while admission.waiting() != count {
            tokio::task::yield_now().await;
        }
    };
    within(seen).await;
}

/// A GET that goes on by itself. Dropping it is the client's leaving.
struct Asked {
    answer: oneshot::Receiver<hyper::Result<Answer>>,
    _task: Tasks,
}

impl Asked {
    async fn get(pod: &Pod, path: &'static str) -> Self {
        let mut client = pod.client().await;
        let (sender, answer) = oneshot::channel();
        let task = Tasks::here();
        task.spawn(async move {
            // Nobody may wait for it any more.
            drop(sender.send(client.get(path).await));
        });
        Self {
            answer,
            _task: task,
        }
    }

    async fn answer(self) -> Answer {
        within(self.answer)
            .await
            .expect("it goes on")
            .expect("answered")
    }
}

#[tokio::test]
async fn what_the_server_has_no_place_for_waits_is_in_flight_and_is_served_in_its_order() {
    let server = ModelServer::start().await;
    let (pod, admission) = pod(&server, 2, Duration::from_secs(600)).await;
    let (_client, response, tokens) = busy(&pod, &server).await;
    let second = Asked::get(&pod, "/hang").await;
    waits(&admission, 1).await;
    let third = Asked::get(&pod, "/").await;
    waits(&admission, 2).await;
    assert_eq!((pod.reading().in_flight, server.requests()), (3, 1));
    let mut hangs = server.waiting();
    let before = *hangs.borrow_and_update();
    drop(tokens);
    read(response).await.expect("whole");
    // It is the second's turn; the third waits behind it.
    within(hangs.wait_for(|now| *now > before))
        .await
        .expect("it lives");
    assert_eq!((admission.waiting(), server.requests()), (1, 2));
    drop(second);
    assert_eq!(third.answer().await.status, 200);
    let reading = pod.accounted(|it| it.in_flight == 0).await;
    assert_eq!(
        (reading.completions, reading.client_gone, reading.refused),
        (2, 1, 0)
    );
}

#[tokio::test]
async fn beyond_the_queue_a_client_is_told_to_come_again_and_a_health_check_passes() {
    let server = ModelServer::start().await;
    let (pod, admission) = pod(&server, 1, Duration::from_secs(600)).await;
    let (_client, response, tokens) = busy(&pod, &server).await;
    let second = Asked::get(&pod, "/").await;
    waits(&admission, 1).await;
    let refused = pod.client().await.get("/").await.expect("answered");
    assert_eq!(
        (refused.status, &refused.headers["retry-after"]),
        (
            429.try_into().expect("a status"),
            &"1".parse().expect("a value")
        )
    );
    let text = String::from_utf8_lossy(&refused.body);
    assert!(
        text.contains("the server has its 1 requests and 1 wait"),
        "{text}"
    );
    let health = pod.client().await.get("/health").await.expect("answered");
    assert_eq!(health.status, 200);
    drop(tokens);
    read(response).await.expect("whole");
    assert_eq!(second.answer().await.status, 200);
    let reading = pod.accounted(|it| it.in_flight == 0).await;
    assert_eq!(
        (reading.arrivals, reading.completions, reading.refused),
        (3, 2, 1)
    );
}

#[tokio::test]
async fn who_waited_for_long_is_told_so_and_leaves_no_place_taken() {
    let server = ModelServer::start().await;
    let (pod, admission) = pod(&server, 5, Duration::from_secs(30)).await;
    let (_client, response, tokens) = busy(&pod, &server).await;
    let late = Asked::get(&pod, "/").await.answer().await;
    assert_eq!(
        (late.status, &late.headers["retry-after"]),
        (
            503.try_into().expect("a status"),
            &"5".parse().expect("a value")
        )
    );
    let text = String::from_utf8_lossy(&late.body);
    assert!(text.contains("within 30s"), "{text}");
    assert_eq!((admission.waiting(), server.requests()), (0, 1));
    drop(tokens);
    read(response).await.expect("whole");
    let next = pod.client().await.get("/").await.expect("answered");
    assert_eq!(next.status, 200);
}

#[tokio::test]
async fn a_client_that_leaves_the_queue_gives_its_place_in_it_up() {
    let server = ModelServer::start().await;
    let (pod, admission) = pod(&server, 5, Duration::from_secs(600)).await;
    let (_client, response, tokens) = busy(&pod, &server).await;
    let mut leaving = pod.client().await;
    {
        let waiting = leaving.begin("/");
        tokio::select! {
            _ = waiting => panic!("there is no place"),
            () = waits(&admission, 1) => {}
        }
    }
    leaving.leave();
    waits(&admission, 0).await;
    assert_eq!(pod.accounted(|it| it.client_gone == 1).await.in_flight, 1);
    drop(tokens);
    read(response).await.expect("whole");
    assert_eq!(server.requests(), 1, "the server never heard of it");
}
