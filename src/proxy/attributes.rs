//! What rules may ask of a request, as they see it: looked for once, and only if a flag of its route asks.

use crate::engine::flags::Context;
use crate::engine::flags::attributes::Value;
use crate::engine::identity::RequestView;
use crate::engine::identity::attributes::{Attributes, Known, Scalar};

/// What a request says under the names of its route.
pub(super) fn known(attributes: &Attributes, view: &RequestView<'_>) -> Context {
    let found = attributes.extract(view).map(|(name, known)| {
        let value = match known {
            Known::One(scalar) => value(scalar),
            Known::List(list) => Value::List(list.into_iter().map(value).collect()),
        };
        (name.into(), value)
    });
    Context::collect(found)
}

fn value(scalar: Scalar) -> Value {
    match scalar {
        Scalar::Bool(on) => Value::Bool(on),
        Scalar::Number(text) => Value::Number(text),
        Scalar::Text(text) => Value::Text(text),
    }
}
