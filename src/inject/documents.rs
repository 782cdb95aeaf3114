//! Manifests as they come: files with many documents, lists in them, and what is not ours to touch.
//!
//! A document that nothing is changed in goes on as it was written, comments included. One that is changed is written
//! anew, without them. One that cannot be read (a key that stands there twice, what a template has left) goes on as well,
//! unless it speaks of sidescale.

use serde::ser::{Serialize, Serializer};
use serde_json::Value;
use serde_saphyr::{DoubleQuoted, MessageFormatter as _, UserMessageFormatter};

use super::settings::PREFIX;
use super::verdict::{Note, Refusal};

/// One text with manifests.
#[derive(Clone, Debug)]
pub struct Source {
    /// A file's name, or what stands for it.
    pub name: String,
    /// YAML or JSON, with as many documents as it likes.
    pub text: String,
}

/// One document.
#[derive(Clone, Debug)]
pub(super) struct Document {
    /// The file, and which of its documents.
    pub(super) place: String,
    /// As it was written.
    text: String,
    /// `null`, where it could not be read.
    pub(super) content: Value,
    /// Why it could not be read.
    unread: Option<String>,
    pub(super) is_changed: bool,
}

/// A value as its YAML is written.
struct Written<'a>(&'a Value);

// === impl Document ===

impl Document {
    pub(super) fn new(place: &str, content: Value) -> Self {
        Self {
            place: place.to_owned(),
            text: String::new(),
            content,
            unread: None,
            is_changed: true,
        }
    }

    /// Its objects: itself, or a list's items.
    pub(super) fn objects(&self) -> Vec<&Value> {
        match self.list() {
            Some(items) => items.iter().collect(),
            None => vec![&self.content],
        }
    }

    /// The items of a list, where it is one.
    pub(super) fn list(&self) -> Option<&Vec<Value>> {
        let kind = self.content["kind"].as_str()?;
        if kind.ends_with("List") {
            self.content["items"].as_array()
        } else {
            None
        }
    }

    /// Puts other objects in its place.
    pub(super) fn replace(&mut self, mut objects: Vec<Value>) {
        self.is_changed = true;
        if self.list().is_some() {
            self.content["items"] = Value::Array(objects);
        } else if let Some(object) = objects.pop() {
            self.content = object;
        }
    }

    pub(super) fn write(&self, out: &mut String) -> Result<(), Refusal> {
        if !self.is_changed {
            out.push_str(&self.text);
            if !self.text.ends_with('\n') {
                out.push('\n');
            }
            return Ok(());
        }
        let options = serde_saphyr::ser_options! {
            // A long line stays one line: a folded one reads the same and hides where its spaces are.
            folded_wrap_chars: usize::MAX,
        };
        let text = serde_saphyr::to_string_with_options(&Written(&self.content), options).map_err(
            |error| {
                Refusal::new(
                    &self.place,
                    error.to_string(),
                    "it cannot be written as YAML",
                )
            },
        )?;
        out.push_str(&text);
        if !text.ends_with('\n') {
            out.push('\n');
        }
        Ok(())
    }
}

// === impl Written ===

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            // In a block, a tab where the text begins is taken for its indentation by kubectl, and refused.
            Value::String(text) if begins_with_a_tab(text) => {
                DoubleQuoted(text).serialize(serializer)
            }
            Value::Array(list) => serializer.collect_seq(list.iter().map(Written)),
            Value::Object(fields) => {
                serializer.collect_map(fields.iter().map(|(key, value)| (key, Written(value))))
            }
            other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => {
                other.serialize(serializer)
            }
        }
    }
}

/// Behind empty lines, too.
fn begins_with_a_tab(text: &str) -> bool {
    let blank = text.len() - text.trim_start().len();
    text[..blank].contains('\t')
}

/// The documents of a text; what holds nothing but comments is left out.
pub(super) fn read(source: &Source) -> Result<Vec<Document>, Refusal> {
    let mut documents = Vec::new();
    for (line, text) in split(&source.text) {
        let place = format!("{} line {line}", source.name);
        let options = serde_saphyr::options! {
            with_snippet: false,
            // A volume's `defaultMode: 0644` would else be the number 644.
            legacy_octal_numbers: true,
        };
        let read = serde_saphyr::from_str_with_options::<Option<Value>>(text, options);
        let (content, unread) = match read {
            Ok(None | Some(Value::Null)) => continue,
            Ok(Some(content @ Value::Object(_))) => (content, None),
            Ok(Some(_)) => (Value::Null, Some("it is no object".to_owned())),
            Err(error) => (Value::Null, Some(why(&error, line))),
        };
        if let Some(reason) = unread.as_ref().filter(|_reason| text.contains(PREFIX)) {
            return Err(Refusal::new(
                place,
                reason,
                "mend the YAML, as it asks for a sidecar or has one",
            ));
        }
        documents.push(Document {
            place,
            text: text.to_owned(),
            content,
            unread,
            is_changed: false,
        });
    }
    Ok(documents)
}

/// Why a document that begins at `first` could not be read, with the line of the whole text.
fn why(error: &serde_saphyr::Error, first: usize) -> String {
    let text = UserMessageFormatter.format_message(error);
    let text = text.escape_debug();
    match error.location() {
        Some(at) if at.line() > 0 => {
            let line = u64::try_from(first).unwrap_or(1) + at.line() - 1;
            format!("{text} at line {line}, column {}", at.column())
        }
        _ => text.to_string(),
    }
}

/// What is said of documents that nobody could read.
pub(super) fn unread(documents: &[Document]) -> impl Iterator<Item = Note> {
    documents.iter().filter_map(|document| {
        let reason = document.unread.as_ref()?;
        Some(Note {
            place: document.place.clone(),
            text: format!(
                "{reason}: it cannot be read and is left letter by letter as it is; a workload in it gets no sidecar, and a Service \
                 or policy in it is not seen"
            ),
        })
    })
}

/// Objects as manifests.
pub fn yaml(objects: Vec<Value>) -> Result<String, Refusal> {
    let objects = objects.into_iter();
    let documents: Vec<Document> = objects.map(|object| Document::new("", object)).collect();
    write(&documents)
}

/// Writes them with a line between each two.
pub(super) fn write(documents: &[Document]) -> Result<String, Refusal> {
    let mut out = String::new();
    for (index, document) in documents.iter().enumerate() {
        if index > 0 {
            out.push_str("---\n");
        }
        document.write(&mut out)?;
    }
    Ok(out)
}

/// The texts between the markers, with the lines at which they begin. A marker stands at the start of a line and
/// nowhere else: YAML allows it in no scalar there.
fn split(text: &str) -> Vec<(usize, &str)> {
    let mut parts = Vec::new();
    let (mut begin, mut first, mut offset) = (0, 1, 0);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let word = line.trim_end();
        let is_marker =
            word == "---" || word == "..." || line.starts_with("--- ") || line.starts_with("---\t");
        if is_marker {
            parts.push((first, &text[begin..offset]));
            // What follows a marker on its line belongs to the document.
            begin = offset + 3;
            if word.len() == 3 {
                begin = offset + line.len();
            }
            first = index + 1 + usize::from(word.len() == 3);
        }
        offset += line.len();
    }
    parts.push((first, &text[begin..]));
    parts
}
