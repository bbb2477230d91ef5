use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue, errors::InvalidMetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

/// A channel on which every call says who makes it; a stub's `with_interceptor` makes one.
pub type Connection = InterceptedService<Channel, Identity>;

/// Who calls, in the metadata of every call.
#[derive(Clone)]
pub struct Identity {
    sent: Vec<(&'static str, MetadataValue<Ascii>)>,
}

impl Identity {
    /// The caller with an API key or JWT.
    pub fn new(key: &str) -> Result<Self, InvalidMetadataValue> {
        let mut authorization: MetadataValue<Ascii> = format!("Bearer {key}").parse()?;
        authorization.set_sensitive(true);
        Ok(Self { sent: vec![("authorization", authorization)] })
    }

    /// One of the key's tenants; needed only where it has several.
    pub fn tenant(self, tenant: &str) -> Result<Self, InvalidMetadataValue> {
        self.with("soma-tenant", tenant)
    }

    /// Persona of what names none.
    pub fn persona(self, persona: &str) -> Result<Self, InvalidMetadataValue> {
        self.with("soma-persona", persona)
    }

    /// Session of what names none.
    pub fn session(self, session: &str) -> Result<Self, InvalidMetadataValue> {
        self.with("soma-session", session)
    }

    fn with(mut self, name: &'static str, value: &str) -> Result<Self, InvalidMetadataValue> {
        self.sent.push((name, value.parse()?));
        Ok(self)
    }
}

impl Interceptor for Identity {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        for (name, value) in &self.sent {
            request.metadata_mut().insert(*name, value.clone());
        }
        Ok(request)
    }
}
