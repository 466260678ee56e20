//! Brings the spellings of one subject to one key.
//!
//! Pure. In: a value as the request carries it. Out: the key that the buckets see. Which entry asks for which rule is the
//! configuration's; what counts as no identity (empty, too long) is decided on the result, in `subjects`.

use std::borrow::Cow;

/// What is done to a value before it becomes a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Normalise {
    /// Nothing: the key is the value, byte for byte.
    #[default]
    AsWritten,
    /// A telephone number becomes its digits.
    ///
    /// A scheme that marks a telephone number (`whatsapp:`, `tel:`, `sms:`, `rcs:`, in any case) is taken off; then all but
    /// the digits goes: `whatsapp:+33 6 39 98 01 23` is `33639980123`. If a letter, or a digit of another script, is left
    /// behind the scheme, the value is no telephone number and stays whole, scheme included: `FR.10020030040050060070`.
    Digits,
    /// Every letter becomes its lower case, as Unicode maps it without regard to language.
    Lower,
}

/// Twilio's channel prefixes for addresses that are telephone numbers, and RFC 3966's and RFC 5724's schemes. Not
/// `messenger:`: its numbers are account ids, and one may equal somebody else's telephone number.
const TELEPHONE_SCHEMES: [&str; 4] = ["whatsapp:", "tel:", "sms:", "rcs:"];

impl Normalise {
    /// The key for a value. Borrows when nothing has to change.
    pub(super) fn apply(self, value: Cow<'_, str>) -> Cow<'_, str> {
        match self {
            Normalise::AsWritten => value,
            Normalise::Digits if value.bytes().all(|b| b.is_ascii_digit()) => value,
            Normalise::Digits => match digits(&value) {
                Some(digits) => Cow::Owned(digits),
                None => value,
            },
            Normalise::Lower if value.bytes().all(|b| b.is_ascii() && !b.is_ascii_uppercase()) => value,
            Normalise::Lower => Cow::Owned(value.to_lowercase()),
        }
    }
}

/// The digits of a telephone number; `None` if the value is something else.
fn digits(value: &str) -> Option<String> {
    let number = TELEPHONE_SCHEMES.iter().find_map(|scheme| {
        let head = value.get(..scheme.len())?;
        if head.eq_ignore_ascii_case(scheme) {
            value.get(scheme.len()..)
        } else {
            None
        }
    });
    let number = number.unwrap_or(value);
    let telephone = number.chars().all(|c| c.is_ascii_digit() || !c.is_alphanumeric());
    telephone.then(|| number.chars().filter(char::is_ascii_digit).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digits_of(value: &str) -> Cow<'_, str> {
        Normalise::Digits.apply(Cow::Borrowed(value))
    }

    #[test]
    fn every_spelling_of_a_number_becomes_the_same_digits() {
        for spelling in [
            "33639980123",
            "+33639980123",
            "+33 6 39 98 01 23",
            "(33) 6-39.98.01.23",
            "whatsapp:+33639980123",
            "WhatsApp:33639980123",
            "tel:+33-6-39-98-01-23",
            "sms:+33639980123",
            "rcs:+33639980123",
        ] {
            assert_eq!(digits_of(spelling), "33639980123", "{spelling}");
        }
    }

    #[test]
    fn value_with_a_letter_stays_whole() {
        for value in [
            "FR.10020030040050060070",
            "cus_Example1",
            "whatsapp:FR.1002",
            "messenger:1002003004",
            "tel:+1-415-555-0142;ext=7",
            "é1",
            "٣٣٦",
            "whatsapp",
            "x:+33639980123",
        ] {
            assert_eq!(digits_of(value), value, "{value}");
        }
    }

    #[test]
    fn number_without_digits_is_empty() {
        assert_eq!(digits_of("+"), "");
        assert_eq!(digits_of("whatsapp:"), "");
    }

    #[test]
    fn value_that_is_digits_already_is_borrowed() {
        assert!(matches!(digits_of("33639980123"), Cow::Borrowed(_)));
        assert!(matches!(
            Normalise::Lower.apply(Cow::Borrowed("a.b@c")),
            Cow::Borrowed(_)
        ));
    }

    #[test]
    fn lower_folds_letters_of_every_script() {
        assert_eq!(
            Normalise::Lower.apply(Cow::Borrowed("Élodie@Example.COM")),
            "élodie@example.com"
        );
    }
}
