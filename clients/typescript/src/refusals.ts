import type { ServiceError } from "@grpc/grpc-js";
import { BadRequest, ErrorInfo } from "../gen/google/rpc/error_details.js";
import { Status } from "../gen/google/rpc/status.js";

/** What a server says about a call that it refused; without `info` the call failed on the way. */
export interface Refusal {
  info?: ErrorInfo;
  violations: { field: string; description: string }[];
}

/** Reads the details of a failed call's status. */
export function refusalOf(error: ServiceError): Refusal {
  const refusal: Refusal = { violations: [] };
  const [packed] = error.metadata?.get("grpc-status-details-bin") ?? [];
  if (!(packed instanceof Uint8Array)) return refusal;
  for (const { typeUrl, value } of Status.decode(packed).details) {
    if (typeUrl.endsWith("/google.rpc.ErrorInfo")) refusal.info = ErrorInfo.decode(value);
    if (typeUrl.endsWith("/google.rpc.BadRequest")) refusal.violations = BadRequest.decode(value).fieldViolations;
  }
  return refusal;
}
