import { InterceptingCall, type Interceptor } from "@grpc/grpc-js";

/** Who calls, in the metadata of every call. */
export interface Identity {
  /** The API key or JWT. */
  key: string;
  /** One of the key's tenants; needed only where it has several. */
  tenant?: string;
  /** Persona and session of what names none itself. */
  persona?: string;
  session?: string;
}

/** For the `interceptors` of a client's options, or of a single call's. */
export function calledBy({ key, tenant, persona, session }: Identity): Interceptor {
  const sent = Object.entries({
    authorization: `Bearer ${key}`,
    "soma-tenant": tenant,
    "soma-persona": persona,
    "soma-session": session,
  });
  return (options, nextCall) =>
    new InterceptingCall(nextCall(options), {
      start(metadata, listener, next) {
        for (const [name, value] of sent) if (value) metadata.set(name, value);
        next(metadata, listener);
      },
    });
}
