{{- define "soma.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "soma.selector" -}}
app.kubernetes.io/name: {{ .top.Chart.Name }}
app.kubernetes.io/instance: {{ .top.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{- define "soma.labels" -}}
{{ include "soma.selector" . }}
app.kubernetes.io/version: {{ .top.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: soma
app.kubernetes.io/managed-by: {{ .top.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .top.Chart.Name .top.Chart.Version }}
{{- end }}

{{- define "soma.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "soma.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary (include "soma.name" .) "default") }}
{{- end }}

{{- define "soma.keysSecret" -}}
{{ .Values.keys.existingSecret | default (printf "%s-keys" (include "soma.name" .)) }}
{{- end }}

{{- define "soma.postgresSecret" -}}
{{ .Values.postgres.existingSecret | default (printf "%s-postgres" (include "soma.name" .)) }}
{{- end }}

{{- define "soma.redisSecret" -}}
{{ .Values.redis.existingSecret | default (printf "%s-redis" (include "soma.name" .)) }}
{{- end }}

{{- define "soma.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "soma.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- /* Of a pod of ours: what every one has. */ -}}
{{- define "soma.pod" -}}
serviceAccountName: {{ include "soma.serviceAccount" . }}
automountServiceAccountToken: false
securityContext: {{- include "soma.podSecurity" . | nindent 2 }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{- define "soma.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* Spread the replicas of a part over nodes, as far as there are enough. */ -}}
{{- define "soma.spread" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "soma.selector" . | nindent 8 }}
{{- end }}

{{- define "soma.env" -}}
{{- range $name, $value := . }}
- name: {{ $name }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- end }}

{{- define "soma.embedderEnv" -}}
- name: SOMA_EMBEDDER
  value: {{ .Values.embedder.kind }}
{{- if eq .Values.embedder.kind "openai" }}
- name: SOMA_EMBEDDER_MODEL
  value: {{ .Values.embedder.model | quote }}
- name: SOMA_EMBEDDER_BASE_URL
  value: {{ .Values.embedder.baseUrl | quote }}
{{- with .Values.embedder.dimensions }}
- name: SOMA_EMBEDDER_DIMENSIONS
  value: {{ . | toString | quote }}
{{- end }}
{{- with .Values.embedder.existingSecret }}
- name: SOMA_EMBEDDER_API_KEY
  valueFrom: {secretKeyRef: {name: {{ . }}, key: {{ $.Values.embedder.apiKeyKey }}}}
{{- end }}
{{- end }}
{{- end }}

{{- define "soma.telemetryEnv" -}}
{{- with .Values.telemetry.otlpEndpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- end }}

{{- define "soma.probes" -}}
startupProbe:
  httpGet: {path: /livez, port: ops}
  periodSeconds: 2
  failureThreshold: 60
livenessProbe:
  # Of the process alone: a store that is away is no reason to restart.
  httpGet: {path: /livez, port: ops}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: ops}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 2
{{- end }}
