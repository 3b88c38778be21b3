//! What is run by name instead of as a kernel.

use std::collections::HashMap;
use std::sync::Arc;

use svod_device::Buffer;
use svod_ir::{CustomFunctionKind, UOp};

use crate::{Error, Result};

/// Runs a custom function. Svod has names for two, and a runtime for neither yet: as with the
/// original, both are refused.
///
/// # Errors
///
/// [`Error::Unsupported`], with the function's name.
pub fn run_custom_function(
    kind: &CustomFunctionKind,
    attrs: &[Arc<UOp>],
    buffers: &mut [Buffer],
    vars: &HashMap<String, i64>,
) -> Result<()> {
    let name = match kind {
        CustomFunctionKind::EncDec => "EncDec",
        CustomFunctionKind::Graph => "Graph",
    };
    Err(Error::Unsupported {
        kind: name.to_owned(),
        reason: format!(
            "it has a name, and nothing runs it yet (attrs={}, buffers={}, vars={})",
            attrs.len(),
            buffers.len(),
            vars.len()
        ),
    })
}
