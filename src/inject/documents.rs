//! Manifests as they come: files with many documents, lists in them, and what is not ours to touch.
//!
//! A document that nothing is changed in goes on as it was written, comments included. One that is changed is written
//! anew, without them.

use serde_json::Value;

use super::verdict::Refusal;

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
    pub(super) content: Value,
    pub(super) is_changed: bool,
}

// === impl Document ===

impl Document {
    pub(super) fn new(place: &str, content: Value) -> Self {
        Self {
            place: place.to_owned(),
            text: String::new(),
            content,
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
        let text =
            serde_saphyr::to_string_with_options(&self.content, options).map_err(|error| {
                Refusal::new(
                    &self.place,
                    error.to_string(),
                    "it cannot be written as YAML",
                )
            })?;
        out.push_str(&text);
        if !text.ends_with('\n') {
            out.push('\n');
        }
        Ok(())
    }
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
        let content: Option<Value> = serde_saphyr::from_str_with_options(text, options)
            .map_err(|error| Refusal::new(&place, error.to_string(), "mend the YAML"))?;
        match content {
            None | Some(Value::Null) => {}
            Some(content @ Value::Object(_)) => documents.push(Document {
                place,
                text: text.to_owned(),
                content,
                is_changed: false,
            }),
            Some(_) => {
                return Err(Refusal::new(
                    place,
                    "is no object",
                    "give manifests of Kubernetes",
                ));
            }
        }
    }
    Ok(documents)
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
