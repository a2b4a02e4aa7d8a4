//! What an experiment file may hold, as JSON schema: for editors, and for the reference page.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::file::Config;
use crate::extends;

/// The JSON schema of an experiment file, made from the types of its sections and their doc comments.
///
/// What must be there is not required: a file that extends another one leaves out what it does not change.
#[must_use]
pub fn for_editors() -> Value {
    let mut schema = of_config();
    walk(&mut schema, &|map| drop(map.remove("required")));
    if let Some(keys) = schema["properties"].as_object_mut() {
        let description =
            "Path of the experiment file that this one changes, from this one's folder.";
        let key = json!({"type": "string", "description": description});
        keys.insert(extends::KEY.to_owned(), key);
    }
    schema
}

/// The schema of the sections, each key's kind written where it stands; TOML knows no null, so neither does this.
#[must_use]
pub fn of_config() -> Value {
    let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
    let schema = settings.into_generator().into_root_schema_for::<Config>();
    let mut schema = Value::from(schema);
    walk(&mut schema, &without_null);
    schema
}

/// Calls `change` on every object within a schema.
fn walk(schema: &mut Value, change: &dyn Fn(&mut Map<String, Value>)) {
    match schema {
        Value::Object(map) => {
            change(map);
            map.values_mut().for_each(|value| walk(value, change));
        }
        Value::Array(all) => all.iter_mut().for_each(|value| walk(value, change)),
        _ => {}
    }
}

/// An optional key is one that may be left out, and not one that may be null.
fn without_null(map: &mut Map<String, Value>) {
    if let Some(Value::Array(kinds)) = map.get_mut("type") {
        kinds.retain(|kind| kind != "null");
        if let [one] = kinds.as_slice() {
            let one = one.clone();
            map.insert("type".to_owned(), one);
        }
    }
    if let Some(Value::Array(values)) = map.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    for key in ["anyOf", "oneOf"] {
        let Some(Value::Array(all)) = map.get_mut(key) else {
            continue;
        };
        all.retain(|one| one.get("type").is_none_or(|kind| kind != "null"));
        if all.len() == 1
            && let Some(Value::Object(one)) = all.pop()
        {
            map.remove(key);
            for (key, value) in one {
                map.entry(key).or_insert(value);
            }
        }
    }
    // A default of "nothing" says nothing.
    if map.get("default").is_some_and(Value::is_null) {
        map.remove("default");
    }
}
