//! Layers that see only the latest positions, by config.json; knows no architecture by name.

use model_files::{Fields, ModelFileError};

use super::architecture::WindowRule;

const SLIDING: &str = "sliding_attention";
/// Names of full attention; the second is older.
const FULL: [&str; 2] = ["full_attention", "attention"];

/// Positions that a query sees in each layer; `None`: all.
pub(super) fn of(config: &Fields, rule: &WindowRule, layers: u32) -> Result<Vec<Option<u32>>, ModelFileError> {
    let types = types(config, layers)?;
    let window = match rule {
        WindowRule::None => None,
        WindowRule::All => config.count_opt("sliding_window")?,
        WindowRule::AllSwitched | WindowRule::Switched => {
            let is_on = config.flag("use_sliding_window")?;
            config.count_opt("sliding_window")?.filter(|_| is_on)
        }
    };
    match (rule, types) {
        (WindowRule::Switched, Some(types)) => types.iter().map(|name| by_type(config, name, window)).collect(),
        (WindowRule::Switched, None) => {
            let missing = || config.problem("max_window_layers", "is missing");
            let first = config.whole_opt("max_window_layers")?.ok_or_else(missing)?;
            Ok((0..layers).map(|layer| window.filter(|_| layer >= first)).collect())
        }
        (WindowRule::None | WindowRule::All | WindowRule::AllSwitched, types) => {
            agree(config, &types.unwrap_or_default(), window)?;
            Ok(vec![window; layers as usize])
        }
    }
}

/// Entry of `layer_types` for each layer, if present; each must be one of the two types.
fn types(config: &Fields, layers: u32) -> Result<Option<Vec<&str>>, ModelFileError> {
    const KEY: &str = "layer_types";
    let Some(types) = config.texts_opt(KEY)? else { return Ok(None) };
    if types.len() != layers as usize {
        return Err(config.problem(KEY, format!("has {} entries for {layers} layers", types.len())));
    }
    match types.iter().find(|name| **name != SLIDING && !FULL.contains(name)) {
        Some(other) => Err(config.problem(KEY, format!("{other:?} is not supported"))),
        None => Ok(Some(types)),
    }
}

fn by_type(config: &Fields, name: &str, window: Option<u32>) -> Result<Option<u32>, ModelFileError> {
    match (name == SLIDING, window) {
        (false, _) => Ok(None),
        (true, Some(window)) => Ok(Some(window)),
        (true, None) => Err(no_window(config)),
    }
}

/// Checks `layer_types` of families whose class ignores it: a file that mixes types means another model.
fn agree(config: &Fields, types: &[&str], window: Option<u32>) -> Result<(), ModelFileError> {
    match (types.contains(&SLIDING), types.iter().any(|name| *name != SLIDING), window) {
        (true, _, None) => Err(no_window(config)),
        (_, true, Some(window)) => {
            let problem = format!("names full_attention, but sliding_window is {window} for all layers of this family");
            Err(config.problem("layer_types", problem))
        }
        _ => Ok(()),
    }
}

fn no_window(config: &Fields) -> ModelFileError {
    config
        .problem("layer_types", "names sliding_attention, but no window is in use (sliding_window, use_sliding_window)")
}
