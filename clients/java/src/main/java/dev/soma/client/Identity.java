package dev.soma.client;

import io.grpc.CallCredentials;
import io.grpc.Metadata;
import java.util.concurrent.Executor;

/**
 * Who calls, in the metadata of every call; for a stub's {@code withCallCredentials}.
 *
 * @param key the API key or JWT
 * @param tenant one of the key's tenants, needed only where it has several; or empty
 * @param persona persona of what names none; or empty
 * @param session session of what names none; or empty
 */
public record Identity(String key, String tenant, String persona, String session) {
  public Identity(String key, String tenant) {
    this(key, tenant, "", "");
  }

  public CallCredentials credentials() {
    Metadata sent = new Metadata();
    put(sent, "authorization", "Bearer " + key);
    put(sent, "soma-tenant", tenant);
    put(sent, "soma-persona", persona);
    put(sent, "soma-session", session);
    return new CallCredentials() {
      @Override
      public void applyRequestMetadata(RequestInfo call, Executor executor, MetadataApplier applier) {
        applier.apply(sent);
      }
    };
  }

  /** Without the key, which does not belong in a log. */
  @Override
  public String toString() {
    return "Identity[tenant=" + tenant + ", persona=" + persona + ", session=" + session + "]";
  }

  private static void put(Metadata sent, String name, String value) {
    if (!value.isEmpty()) {
      sent.put(Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER), value);
    }
  }
}
