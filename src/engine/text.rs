//! The sample lines of a Prometheus text, and nothing more of it: `name{label="value",…} number`.
//!
//! Comments, types, timestamps, exemplars and lines that are none of all this are passed over: a server's text is read for a
//! handful of lines, and one that is broken elsewhere still has them. Nothing is copied.

use std::iter;

/// One sample line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Line<'a> {
    pub(crate) name: &'a str,
    /// What stands between the braces.
    labels: &'a str,
    pub(crate) value: f64,
}

// === impl Line ===

impl<'a> Line<'a> {
    /// The labels in their order, values as they stand: an escape stays an escape.
    pub(crate) fn labels(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let mut rest = self.labels;
        iter::from_fn(move || {
            let (name, behind) = rest.split_once('=')?;
            let value = behind.trim_start().strip_prefix('"')?;
            let end = end_of_quoted(value)?;
            rest = &value[end + 1..];
            let name = name.trim_matches(|c: char| c == ',' || c.is_whitespace());
            Some((name, &value[..end]))
        })
    }

    /// The value of one label.
    pub(crate) fn label(&self, wanted: &str) -> Option<&'a str> {
        self.labels()
            .find_map(|(name, value)| (name == wanted).then_some(value))
    }
}

/// The sample lines of `text`.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    text.lines().filter_map(line)
}

fn line(text: &str) -> Option<Line<'_>> {
    let text = text.trim();
    let end = text.find(|c: char| c == '{' || c.is_whitespace())?;
    let (name, rest) = text.split_at(end);
    if name.is_empty() || name.starts_with('#') {
        return None;
    }
    let (labels, rest) = match rest.trim_start().strip_prefix('{') {
        Some(inside) => {
            let end = end_of_labels(inside)?;
            (&inside[..end], &inside[end + 1..])
        }
        None => ("", rest),
    };
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Line {
        name,
        labels,
        value,
    })
}

/// Where the closing brace is; one within quotes is text.
fn end_of_labels(text: &str) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + text[from..].find(['"', '}'])?;
        if text[at..].starts_with('}') {
            return Some(at);
        }
        from = at + 1 + end_of_quoted(&text[at + 1..])? + 1;
    }
}

/// Where the closing quote is; one behind a backslash is text.
fn end_of_quoted(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    text.char_indices().find_map(|(at, c)| {
        let is_end = c == '"' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        is_end.then_some(at)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Labels<'a> = Vec<(&'a str, &'a str)>;

    fn read(text: &str) -> Vec<(&str, Labels<'_>, f64)> {
        lines(text)
            .map(|line| (line.name, line.labels().collect(), line.value))
            .collect()
    }

    #[test]
    fn samples_are_read_whatever_stands_around_and_behind_them() {
        let text = "\
# HELP up Whether {it} is \"up\" 1
# TYPE up gauge
up 1
  spaced   { a = \"1\" , b=\"2\", }\t3.5e3 1700000000000\r
odd{model=\"a}b\\\"c,d=\\\\\",rank=\"0\"} 7 # {trace=\"x\"} 1 2
none{} +Inf
";
        let expected = [
            ("up", vec![], 1.0),
            ("spaced", vec![("a", "1"), ("b", "2")], 3_500.0),
            (
                "odd",
                vec![("model", "a}b\\\"c,d=\\\\"), ("rank", "0")],
                7.0,
            ),
            ("none", vec![], f64::INFINITY),
        ];
        assert_eq!(read(text), expected);
        let odd = lines(text).find(|line| line.name == "odd");
        let odd = odd.expect("it was read");
        assert_eq!((odd.label("rank"), odd.label("d")), (Some("0"), None));
    }

    #[test]
    fn a_line_that_is_none_costs_only_itself() {
        let text = "a{b=\"c\" 1\nname\nname x\n{\"quoted\"} 1\n<html>\na{b=\"c\\\"} 1\ngood 2";
        assert_eq!(read(text), [("good", vec![], 2.0)]);
    }

    /// Pieces that lines are made of, in any order.
    fn piece() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-z_:]{1,6}",
            "[{}=\",\\\\# \t\r\n]{1,3}",
            "-?[0-9]{1,3}(\\.[0-9]{0,2})?(e[0-9]{1,3})?",
            "\\PC{0,3}",
        ]
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(pieces in prop::collection::vec(piece(), 0..40)) {
            for line in lines(&pieces.concat()) {
                prop_assert!(!line.name.is_empty());
                prop_assert!(line.labels().count() <= line.labels.len());
            }
        }

        #[test]
        fn what_is_written_is_read(
            name in "[a-z_:][a-z0-9_:]{0,20}",
            labels in prop::collection::vec(("[a-z_]{1,8}", "[ -~&&[^\"\\\\]]{0,8}"), 0..4),
            value in -1e12..1e12_f64,
        ) {
            let inside: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
            let text = format!("{name}{{{}}} {value}", inside.join(","));
            let labels = labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            prop_assert_eq!(read(&text), vec![(name.as_str(), labels, value)]);
        }
    }
}
