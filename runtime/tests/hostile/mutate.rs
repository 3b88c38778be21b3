//! Damage, the same each time.

use serde_json::Value;

use crate::common::Rng;

/// Numbers at which things end.
const ODD: [u64; 16] = [
    0,
    1,
    2,
    7,
    8,
    0x7f,
    0x80,
    0xff,
    0x1000,
    0xffff,
    1 << 31,
    0xffff_ffff,
    1 << 32,
    1 << 63,
    !0 - 7,
    !0,
];

/// A copy with some bytes changed, and now and then some moved, dropped or repeated.
pub(crate) fn bytes(rng: &mut Rng, whole: &[u8]) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for _ in 0..=rng.below(4) {
        if bytes.len() < 16 {
            bytes.extend(rng.next().to_le_bytes());
            continue;
        }
        let at = rng.below(bytes.len() - 8);
        let width = rng.pick(&[1, 2, 4, 8]);
        let number = if rng.below(3) == 0 {
            rng.next()
        } else {
            rng.pick(&ODD)
        };
        match rng.below(16) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..at + rng.below((bytes.len() - at).min(64)))),
            2 => {
                let end = at + rng.below((bytes.len() - at).min(64));
                let part = bytes[at..end].to_vec();
                let to = rng.below(bytes.len());
                bytes.splice(to..to, part);
            }
            3 => {
                // One field over another, as sizes over offsets.
                let from = rng.below(bytes.len() - 8);
                bytes.copy_within(from..from + width, at);
            }
            4..8 => bytes[at] ^= 1 << rng.below(8),
            // Fields are aligned to what they hold.
            8..13 => {
                let at = at & !(width - 1);
                bytes[at..at + width].copy_from_slice(&number.to_le_bytes()[..width]);
            }
            _ => {
                let at = at & !(width - 1);
                let mut old = [0; 8];
                old[..width].copy_from_slice(&bytes[at..at + width]);
                let near = u64::from_le_bytes(old)
                    .wrapping_add(rng.below(9) as u64)
                    .wrapping_sub(4);
                bytes[at..at + width].copy_from_slice(&near.to_le_bytes()[..width]);
            }
        }
    }
    bytes
}

/// A copy of a JSON value with some of its parts changed into others.
pub(crate) fn json(rng: &mut Rng, whole: &Value) -> Value {
    let mut value = whole.clone();
    for _ in 0..=rng.below(3) {
        let mut paths = Vec::new();
        collect(&value, String::new(), &mut paths);
        let path = paths[rng.below(paths.len())].clone();
        let other = value
            .pointer(&paths[rng.below(paths.len())])
            .cloned()
            .unwrap_or_default();
        let new = match rng.below(10) {
            0 => Value::Null,
            1 => other,
            2 => Value::from(rng.pick(&ODD)),
            3 => Value::from(rng.pick(&ODD).cast_signed()),
            4 => Value::from(rng.pick(&[0.5, -1e300, 1e-320, 3.0])),
            5 => Value::from(rng.pick(&[
                "", "f32", "u8", "bool", "rw", "temp", "../x", "n", "x", "status",
            ])),
            6 => serde_json::json!({"mul": [{"var": "n"}, rng.pick(&ODD)]}),
            7 => {
                serde_json::json!({"buffer": rng.below(6), "offset": rng.pick(&[0, 4, 16, 64]), "bytes": rng.pick(&ODD)})
            }
            _ => {
                remove(&mut value, &path, rng.below(2) == 0);
                continue;
            }
        };
        if let Some(place) = value.pointer_mut(&path) {
            *place = match (&*place, rng.below(3)) {
                (Value::Number(n), 0) => {
                    let near = rng.below(5) as i64 - 2;
                    Value::from((n.as_f64().unwrap_or(0.0) as i64).saturating_add(near))
                }
                _ => new,
            };
        }
    }
    value
}

/// The way to each part of a value.
fn collect(value: &Value, at: String, paths: &mut Vec<String>) {
    match value {
        Value::Object(map) => map
            .iter()
            .for_each(|(k, v)| collect(v, format!("{at}/{k}"), paths)),
        Value::Array(list) => {
            let parts = list.iter().enumerate();
            parts.for_each(|(i, v)| collect(v, format!("{at}/{i}"), paths));
        }
        _ => {}
    }
    paths.push(at);
}

/// Takes a part out, or has it twice.
fn remove(value: &mut Value, path: &str, twice: bool) {
    let Some((parent, key)) = path.rsplit_once('/') else {
        return;
    };
    match value.pointer_mut(parent) {
        Some(Value::Object(map)) => drop(map.remove(key)),
        Some(Value::Array(list)) => {
            let Some(i) = key.parse::<usize>().ok().filter(|&i| i < list.len()) else {
                return;
            };
            if twice {
                let part = list[i].clone();
                list.insert(i, part);
            } else {
                list.remove(i);
            }
        }
        _ => {}
    }
}
