//! The reader that asks a tree field by field and refuses with path, value, range and remedy.

use std::fmt;
use std::time::Duration;

use super::node::{Key, Kind, Node};
use super::read::Problem;
use super::spelling::nearest;
use crate::units::{self, Shown};

/// All that is wrong so far.
#[derive(Debug, Default)]
pub(super) struct Problems(pub(super) Vec<Problem>);

/// A value and the way to it.
#[derive(Clone, Debug)]
pub(super) struct Field<'a> {
    pub(super) path: String,
    node: &'a Node,
}

/// A mapping whose fields are known.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    path: String,
    line: u64,
    entries: &'a [(Key, Node)],
}

/// The names a mapping may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names<'a> {
    /// Those that are read.
    pub(super) known: &'a [&'a str],
    /// Those that stand in the schema and that this version does not have.
    pub(super) later: &'a [&'a str],
}

/// What a value must lie in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    pub(super) contains: fn(f64) -> bool,
    pub(super) shown: &'static str,
    pub(super) example: &'static str,
}

// === impl Problems ===

impl Problems {
    fn push(&mut self, path: String, line: u64, text: String) {
        // The parser counts lines from 1; 0 means that it does not know.
        let line = (line > 0).then_some(line);
        self.0.push(Problem { path, line, text });
    }
}

// === impl Field ===

impl<'a> Field<'a> {
    /// The whole document: a field without a name.
    pub(super) fn root(node: &'a Node) -> Self {
        Self {
            path: String::new(),
            node,
        }
    }

    /// Notes what is wrong with this field.
    pub(super) fn refuse(&self, problems: &mut Problems, text: String) {
        problems.push(self.path.clone(), self.node.line, text);
    }

    /// The fields of a mapping; unknown ones are noted. Nothing at all reads as an empty mapping.
    pub(super) fn fields(&self, names: Names<'_>, problems: &mut Problems) -> Option<Fields<'a>> {
        let entries = match &self.node.kind {
            Kind::Map(entries) => entries.as_slice(),
            Kind::Null => &[],
            other @ (Kind::Bool(_) | Kind::Number(_) | Kind::Text(_) | Kind::List(_)) => {
                let text = format!("{other} is not a mapping; its fields are {}", list(names));
                self.refuse(problems, text);
                return None;
            }
        };
        let fields = Fields {
            path: self.path.clone(),
            line: self.node.line,
            entries,
        };
        for (index, (key, _value)) in entries.iter().enumerate() {
            let earlier = entries[..index].iter().find(|it| it.0.name == key.name);
            if let Some((first, _value)) = earlier {
                let text = format!("is given twice, first in line {}; keep one", first.line);
                problems.push(fields.path_to(&key.name), key.line, text);
            }
            if !names.known.contains(&key.name.as_str()) {
                problems.push(fields.path_to(&key.name), key.line, unknown(key, names));
            }
        }
        Some(fields)
    }

    /// The items of a list.
    pub(super) fn items(&self, problems: &mut Problems) -> Vec<Field<'a>> {
        let Kind::List(items) = &self.node.kind else {
            let text = format!(
                "{} is not a list; start each item with `- `",
                self.node.kind
            );
            self.refuse(problems, text);
            return Vec::new();
        };
        let indexed = items.iter().enumerate();
        indexed
            .map(|(index, node)| Field {
                path: format!("{}[{index}]", self.path),
                node,
            })
            .collect()
    }

    /// A number in a range. Kubernetes writes quantities as text (`"0.05"`, `50m`): they are read, too.
    pub(super) fn number(&self, range: &Range, problems: &mut Problems) -> Option<f64> {
        let number = match &self.node.kind {
            Kind::Number(number) => Some(*number),
            Kind::Text(text) => quantity(text),
            Kind::Null | Kind::Bool(_) | Kind::List(_) | Kind::Map(_) => None,
        };
        self.ranged(number, "a number", range, problems)
    }

    /// A whole number in a range.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole and within u32 by the test before"
    )]
    pub(super) fn count(&self, range: &Range, problems: &mut Problems) -> Option<u32> {
        let number = self.number(range, problems)?;
        if number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number) {
            return Some(number as u32);
        }
        let example = range.example;
        self.refuse(
            problems,
            format!("{number} is not a whole number; write for example {example}"),
        );
        None
    }

    /// A share written with a percent sign: 1 for `100%`.
    pub(super) fn percent(&self, range: &Range, problems: &mut Problems) -> Option<f64> {
        let percent = match &self.node.kind {
            Kind::Text(text) => text
                .strip_suffix('%')
                .and_then(|number| number.trim().parse::<f64>().ok()),
            Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::List(_) | Kind::Map(_) => None,
        };
        let percent = self.ranged(percent, "a number with a percent sign", range, problems)?;
        Some(percent / 100.0)
    }

    /// A duration in a range of seconds; a bare number counts seconds, as in HPA's `periodSeconds`.
    pub(super) fn duration(&self, range: &Range, problems: &mut Problems) -> Option<Duration> {
        let duration = match &self.node.kind {
            Kind::Number(secs) => Duration::try_from_secs_f64(*secs).ok(),
            Kind::Text(text) => units::parse_duration(text).ok(),
            Kind::Null | Kind::Bool(_) | Kind::List(_) | Kind::Map(_) => None,
        };
        let Some(duration) = duration else {
            let Range { shown, example, .. } = range;
            let text = format!(
                "{} is not a duration ({shown}); write a number with s, m, h or d, for example {example}",
                self.node.kind
            );
            self.refuse(problems, text);
            return None;
        };
        if (range.contains)(duration.as_secs_f64()) {
            return Some(duration);
        }
        self.refuse(problems, out_of_range(&Shown(duration), range));
        None
    }

    /// One of some words.
    pub(super) fn word<T: Copy>(
        &self,
        words: &[(&str, T)],
        later: &[&str],
        problems: &mut Problems,
    ) -> Option<T> {
        let known: Vec<&str> = words.iter().map(|(word, _value)| *word).collect();
        let names = Names {
            known: &known,
            later,
        };
        let text = self.text().unwrap_or_default();
        if let Some((_word, value)) = words.iter().find(|(word, _value)| *word == text) {
            return Some(*value);
        }
        let given = &self.node.kind;
        let text = if later.contains(&text) {
            format!(
                "{given} is not available in this version yet; write one of {}",
                list(names)
            )
        } else if let Some(near) = nearest(text, &known) {
            format!("{given} is not known; did you mean `{near}`?")
        } else {
            format!("{given} is not known; write one of {}", list(names))
        };
        self.refuse(problems, text);
        None
    }

    /// The text, where the value is text.
    pub(super) fn text(&self) -> Option<&'a str> {
        match &self.node.kind {
            Kind::Text(text) => Some(text),
            Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::List(_) | Kind::Map(_) => None,
        }
    }

    /// The value for a message.
    pub(super) fn shown(&self) -> String {
        self.node.kind.to_string()
    }

    fn ranged(
        &self,
        number: Option<f64>,
        what: &str,
        range: &Range,
        problems: &mut Problems,
    ) -> Option<f64> {
        let Some(number) = number else {
            let Range { shown, example, .. } = range;
            let text = format!(
                "{} is not {what} ({shown}); write for example {example}",
                self.node.kind
            );
            self.refuse(problems, text);
            return None;
        };
        if number.is_finite() && (range.contains)(number) {
            return Some(number);
        }
        self.refuse(problems, out_of_range(&number, range));
        None
    }
}

// === impl Fields ===

impl<'a> Fields<'a> {
    /// A field that is given; a null counts as absent, as it does for Kubernetes.
    pub(super) fn get(&self, name: &str) -> Option<Field<'a>> {
        let (_key, node) = self.entries.iter().find(|(key, _node)| key.name == name)?;
        (!matches!(node.kind, Kind::Null)).then(|| Field {
            path: self.path_to(name),
            node,
        })
    }

    /// A field that must be given; its absence is noted with the reason.
    pub(super) fn require(
        &self,
        name: &str,
        why: &str,
        problems: &mut Problems,
    ) -> Option<Field<'a>> {
        let field = self.get(name);
        if field.is_none() {
            problems.push(self.path_to(name), self.line, format!("is missing; {why}"));
        }
        field
    }

    fn path_to(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }
}

fn out_of_range(value: &impl fmt::Display, range: &Range) -> String {
    let Range { shown, example, .. } = range;
    format!("{value} is out of range ({shown}); write for example {example}")
}

fn unknown(key: &Key, names: Names<'_>) -> String {
    if names.later.contains(&key.name.as_str()) {
        return "is not available in this version yet; remove it".to_owned();
    }
    match nearest(&key.name, names.known) {
        Some(near) => format!("is not a field here; did you mean `{near}`?"),
        None => format!("is not a field here; the fields are {}", list(names)),
    }
}

fn list(names: Names<'_>) -> String {
    names.known.join(", ")
}

fn quantity(text: &str) -> Option<f64> {
    let text = text.trim();
    let (number, unit) = match text.strip_suffix('m') {
        Some(millis) => (millis, 0.001),
        None => (text, 1.0),
    };
    Some(number.parse::<f64>().ok()? * unit)
}
