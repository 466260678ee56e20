//! JSON Schema of the three files, made from the declarations that decode them.
//!
//! Pure. `understudy schema` prints it for editors, which complete and underline by it, and for CI. It says what a file may
//! look like; what its members mean together is `understudy check`'s to say, so a file that fits may still be refused,
//! and one that does not fit always is.
//!
//! Source: JSON Schema draft 2020-12.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::raw;
use super::reference::flow;
use super::tokens::TokensFile;
use crate::engine::ruleset::decode::{Decode, Member, Need, RecordShape, Shape, Word};
use crate::engine::ruleset::document::Document;

/// The files that have a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// `config/understudy.yaml`.
    Config,
    /// `config/features.yaml`.
    Flags,
    /// What `admin.tokens_file` names.
    Tokens,
}

/// The schema of one file: an object with `$schema`, `title`, `$defs` and what the file's top holds.
#[must_use]
pub fn schema(file: File) -> Value {
    let (title, shape) = match file {
        File::Config => ("understudy: the configuration", raw::Config::shape()),
        File::Flags => ("understudy: the flags", Document::shape()),
        File::Tokens => ("understudy: the tokens", TokensFile::shape()),
    };
    let mut writer = Writer::default();
    let top = match shape {
        Shape::Record(record) => writer.record(&record()),
        other => writer.shape(&other),
    };
    let mut schema = Map::new();
    schema.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
    schema.insert("title".into(), title.into());
    if let Value::Object(top) = top {
        schema.extend(top);
    }
    let defs = writer.defs.into_iter().map(|(name, def)| (name.to_owned(), def));
    schema.insert("$defs".into(), Value::Object(defs.collect()));
    Value::Object(schema)
}

#[derive(Default)]
struct Writer {
    /// Records by the names of their types; a record that contains itself refers to its own entry.
    defs: BTreeMap<&'static str, Value>,
}

impl Writer {
    fn shape(&mut self, shape: &Shape) -> Value {
        match shape {
            Shape::Scalar(name) => scalar(name),
            Shape::Words(words) => json!({ "oneOf": words.iter().map(word).collect::<Vec<_>>() }),
            Shape::List(item) => json!({ "type": "array", "items": self.shape(item) }),
            Shape::Map { key, value } => {
                let mut map = Map::new();
                map.insert("type".into(), "object".into());
                if let Some(pattern) = scalar(key).get("pattern") {
                    map.insert("propertyNames".into(), json!({ "pattern": pattern }));
                }
                map.insert("additionalProperties".into(), self.shape(value));
                Value::Object(map)
            }
            Shape::Record(record) => {
                let record = record();
                let name = record.name;
                if !self.defs.contains_key(name) {
                    self.defs.insert(name, Value::Null);
                    let written = self.record(&record);
                    self.defs.insert(name, written);
                }
                json!({ "$ref": format!("#/$defs/{name}") })
            }
            Shape::Union(shapes) => any_of(shapes.iter().map(|shape| self.shape(shape)).collect()),
            Shape::Nullable(shape) => any_of(vec![self.shape(shape), json!({ "type": "null" })]),
        }
    }

    fn record(&mut self, record: &RecordShape) -> Value {
        let mut properties = Map::new();
        let mut required = Vec::new();
        for Member { name, doc, shape, need } in &record.members {
            let mut member = self.shape(shape);
            if let Value::Object(member) = &mut member {
                member.insert("description".into(), flow(doc).into());
                if let Need::Default(text) = need
                    && let Some(value) = default(text)
                {
                    member.insert("default".into(), value);
                }
            }
            if *need == Need::Required {
                required.push(*name);
            }
            properties.insert((*name).to_owned(), member);
        }
        let mut object = Map::new();
        object.insert("type".into(), "object".into());
        object.insert("description".into(), flow(&record.doc).into());
        object.insert("properties".into(), properties.into());
        if !required.is_empty() {
            object.insert("required".into(), required.into());
        }
        let others = record
            .others
            .as_ref()
            .map_or(Value::Bool(false), |shape| self.shape(shape));
        object.insert("additionalProperties".into(), others);
        Value::Object(object)
    }
}

/// One of these; alternatives of alternatives are one list, which editors show better.
fn any_of(shapes: Vec<Value>) -> Value {
    let mut flat = Vec::new();
    for mut shape in shapes {
        let alone = shape.as_object().is_some_and(|members| members.len() == 1);
        let inner = shape.get_mut("anyOf").filter(|_| alone).map(Value::take);
        match inner {
            Some(Value::Array(inner)) => flat.extend(inner),
            _ => flat.push(shape),
        }
    }
    json!({ "anyOf": flat })
}

fn word(word: &Word) -> Value {
    // The two words of YAML that are no texts.
    let value = match word.text {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        text => text.into(),
    };
    json!({ "const": value, "description": flow(word.doc) })
}

/// A default as the value that its text is; a list or a map of several stays in the description alone.
fn default(text: &str) -> Option<Value> {
    let structured = text.starts_with(['[', '{']);
    let value = serde_json::from_str(text).ok();
    value.or_else(|| (!structured).then(|| text.into()))
}

/// What the text of a scalar may look like. An editor reads `25` and `0123` as numbers where we read texts, so what may
/// look like a number is allowed to be one.
fn scalar(name: &str) -> Value {
    const KEY: &str = "^[A-Za-z0-9._-]{1,200}$";
    const DURATION: &str = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+$";
    const DATE: &str =
        r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})$";
    match name {
        "boolean" => json!({ "type": "boolean" }),
        "whole number" => json!({ "type": "integer", "minimum": 0 }),
        "number" => json!({ "type": "number" }),
        "status" => json!({ "type": "integer", "minimum": 100, "maximum": 999 }),
        "points per day" => json!({ "type": "number", "exclusiveMinimum": 0 }),
        "percentage" => {
            json!({ "type": ["number", "string"], "minimum": 0, "maximum": 100, "pattern": r"^[0-9]+(\.[0-9]+)?%?$" })
        }
        "percent" => json!({ "type": "number", "minimum": 0, "maximum": 100 }),
        "duration" => json!({ "type": "string", "pattern": DURATION, "examples": ["1500ms", "10s", "5m"] }),
        "size" => json!({ "type": "string", "pattern": "^[0-9]+ ?(B|[KMG]i?B)$", "examples": ["64KiB", "4MiB"] }),
        "date" => json!({ "type": "string", "pattern": DATE, "examples": ["2026-01-01T00:00:00Z"] }),
        "flag key" | "route name" | "segment name" => json!({ "type": ["string", "integer"], "pattern": KEY }),
        "SHA-256" => json!({ "type": "string", "pattern": "^[0-9a-fA-F]{64}$" }),
        "variable name" => json!({ "type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$" }),
        "weight" => json!({ "type": "number", "minimum": 0, "maximum": 100 }),
        "any value" => json!({}),
        "hours" => json!({ "type": "string", "pattern": "^[0-2][0-9]:[0-5][0-9]-[0-2][0-9]:[0-5][0-9]$" }),
        "{}" => json!({ "type": "object", "maxProperties": 0 }),
        "URL or list of URLs" => json!({ "anyOf": [
            { "type": "string" },
            { "type": "array", "items": { "type": "string" }, "minItems": 1 },
        ] }),
        _ => json!({ "type": ["string", "number", "boolean"] }),
    }
}

#[cfg(test)]
mod tests {
    use jsonschema::Validator;

    use super::*;

    fn validator(file: File) -> Validator {
        jsonschema::draft202012::new(&schema(file)).expect("the schema is one")
    }

    /// What is wrong with a text, in the schema's eyes.
    fn faults(file: File, text: &str) -> Vec<String> {
        let value: Value = serde_saphyr::from_str(text).expect("YAML");
        validator(file)
            .iter_errors(&value)
            .map(|error| error.to_string())
            .collect()
    }

    const NONE: &[String] = &[];

    #[test]
    fn shipped_files_fit() {
        assert_eq!(faults(File::Config, include_str!("../../config/understudy.yaml")), NONE);
        assert_eq!(faults(File::Flags, include_str!("../../config/features.yaml")), NONE);
        let every_kind = include_str!("../../tests/spec/flags/example.yaml");
        assert_eq!(faults(File::Flags, every_kind), NONE);
        let tokens = format!(
            "tokens: [ {{ name: ann, role: operator, sha256: \"{}\" }} ]",
            "0f".repeat(32)
        );
        assert_eq!(faults(File::Tokens, &tokens), NONE);
    }

    #[test]
    fn what_people_write_without_quotes_fits() {
        let text = "features:\n  A:\n    type: boolean\n    enabled: null\n    percentage: 12.5\n    denylist: [447700900123, 0123, abc]\n    \
                    start_date: 2026-01-01T00:00:00Z\n    description: 7\n";
        assert_eq!(faults(File::Flags, text), NONE);
    }

    #[test]
    fn slips_are_found() {
        let flag = |members: &str| faults(File::Flags, &format!("features: {{ A: {{ {members} }} }}")).len();
        assert_eq!(flag("type: boolean"), 0);
        for slip in [
            "type: bool",
            "enabled: true",
            "type: boolean, percentag: 5",
            "type: boolean, percentage: 101",
            "type: boolean, enabled: 1",
            "type: boolean, end_date: tomorrow",
            "type: targeted, rules: [ { type: usr, conditions: { user_ids: [a] } } ]",
            "type: targeted, rules: [ { type: user } ]",
            "type: targeted, rules: [ { type: property, conditions: { attribute: a, operator: equal, values: [b] } } ]",
            "type: variant, variants: [ { name: a } ]",
            "type: boolean, prerequisites: [ { value: true } ]",
        ] {
            assert_ne!(flag(slip), 0, "{slip}");
        }
        assert_ne!(faults(File::Config, "listeners: []\nflag: {}").len(), 0);
    }

    #[test]
    fn editors_see_meanings_words_and_defaults() {
        let schema = schema(File::Flags);
        let record = &schema["$defs"]["FlagRecord"];
        assert_eq!(record["required"], json!(["type"]));
        assert!(
            record["properties"]["denylist"]["description"]
                .as_str()
                .is_some_and(|text| text.starts_with("Who never"))
        );
        let words = record["properties"]["type"]["oneOf"].as_array().expect("a closed set");
        assert!(
            words
                .iter()
                .any(|word| word["const"] == "percentage" && word["description"].is_string()),
            "{words:?}"
        );
        let config = super::schema(File::Config);
        assert_eq!(config["$defs"]["Capture"]["properties"]["body"]["default"], "4MiB");
    }
}
