//! The page and what it loads: three files inside the program, nothing from elsewhere.

use bytes::Bytes;
use http::StatusCode;

use crate::admin::answer::{Answer, answer};

/// A file of the page, if `path` is one.
pub(super) fn file(path: &str) -> Option<Answer> {
    let (content_type, text) = match path {
        "/" => ("text/html; charset=utf-8", include_str!("page/index.html")),
        "/page.js" => (
            "text/javascript; charset=utf-8",
            include_str!("page/page.js"),
        ),
        "/page.css" => ("text/css; charset=utf-8", include_str!("page/page.css")),
        _ => return None,
    };
    Some(answer(
        StatusCode::OK,
        content_type,
        Bytes::from_static(text.as_bytes()),
    ))
}
