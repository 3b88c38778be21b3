//! Which devices there are, and how each is made.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use snafu::ResultExt;
use svod_device::device::Device;
use svod_device::registry::DeviceRegistry;
use svod_dtype::DeviceSpec;

use crate::devices::cpu::create_cpu_device;
use crate::error::{DeviceSnafu, Error, Result};

/// Makes a device, with the allocator that the registry has for it.
pub type DeviceFactory =
    Arc<dyn Fn(&DeviceSpec, &DeviceRegistry) -> svod_device::Result<Device> + Send + Sync>;

/// Makes devices on demand, each once.
pub struct DeviceFactoryRegistry {
    devices: RwLock<HashMap<DeviceSpec, Arc<Device>>>,
    factories: RwLock<HashMap<String, DeviceFactory>>,
}

/// The factories of the process.
pub static DEVICE_FACTORIES: LazyLock<DeviceFactoryRegistry> =
    LazyLock::new(DeviceFactoryRegistry::new);

impl DeviceFactoryRegistry {
    /// A registry that knows the CPU device.
    #[must_use]
    pub fn new() -> Self {
        let registry = Self {
            devices: RwLock::default(),
            factories: RwLock::default(),
        };
        registry.register_factory("CPU", Arc::new(|_, registry| create_cpu_device(registry)));
        registry
    }

    /// Has devices of a type, in letters of either case, be made by `factory` from now on. Those
    /// that exist stay.
    pub fn register_factory(&self, device_type: &str, factory: DeviceFactory) {
        let mut factories = self
            .factories
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        factories.insert(device_type.to_uppercase(), factory);
    }

    /// The device, made now if it was not before.
    ///
    /// # Errors
    ///
    /// [`Error::UnsupportedDevice`] where no factory makes devices of its type, and
    /// [`Error::Device`] where the factory fails.
    pub fn device(&self, spec: &DeviceSpec, registry: &DeviceRegistry) -> Result<Arc<Device>> {
        let devices = self.devices.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(device) = devices.get(spec) {
            return Ok(Arc::clone(device));
        }
        drop(devices);
        // Under the lock, so that it is made once.
        let mut devices = self.devices.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(device) = devices.get(spec) {
            return Ok(Arc::clone(device));
        }
        let kind = spec.base_type();
        let factories = self
            .factories
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let factory = factories.get(kind).cloned();
        drop(factories);
        let factory = factory.ok_or_else(|| Error::UnsupportedDevice {
            device: kind.to_owned(),
        })?;
        let device = Arc::new(factory(spec, registry).context(DeviceSnafu)?);
        devices.insert(spec.clone(), Arc::clone(&device));
        Ok(device)
    }
}

impl Default for DeviceFactoryRegistry {
    fn default() -> Self {
        Self::new()
    }
}
