{{- define "countersign.name" -}}
{{- default .Release.Name .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "countersign.account" -}}
{{- default (include "countersign.name" .) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "countersign.selector" -}}
app.kubernetes.io/name: countersign
app.kubernetes.io/component: {{ include "countersign.name" . }}
{{- end -}}

{{- define "countersign.labels" -}}
{{ include "countersign.selector" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- define "countersign.subject" -}}
subjects:
  - kind: ServiceAccount
    name: {{ include "countersign.account" . }}
    namespace: {{ .Release.Namespace }}
{{- end -}}

{{- /* The bootstrap file, with the Service's own names among the hosts that are answered, and the metrics' port. */ -}}
{{- define "countersign.bootstrap" -}}
{{- $name := include "countersign.name" . -}}
{{- $own := list $name (printf "%s.%s" $name .Release.Namespace) (printf "%s.%s.svc" $name .Release.Namespace) (printf "%s.%s.svc.cluster.local" $name .Release.Namespace) -}}
{{- $bootstrap := deepCopy .Values.configuration.bootstrap -}}
{{- $http := default (dict) $bootstrap.http -}}
{{- $hosts := concat $own (default (list) $http.allowed_hosts) | uniq -}}
{{- $_ := set $http "allowed_hosts" $hosts -}}
{{- $_ := set $bootstrap "http" $http -}}
{{- if .Values.metrics.enabled -}}
{{- $_ := set $bootstrap "metrics" (printf "0.0.0.0:%d" (int .Values.metrics.port)) -}}
{{- end -}}
{{- toYaml $bootstrap -}}
{{- end -}}

{{- /* The program listens on a routable address and refuses that without any token: said here already. */ -}}
{{- define "countersign.check" -}}
{{- if and (not .Values.configuration.extraConfigMaps) (not (contains "token_sha256:" (toYaml .Values.configuration.resources))) -}}
{{- fail "No Agent in configuration.resources has a token_sha256, so nobody could be authenticated over HTTP." -}}
{{- end -}}
{{- if and .Values.metrics.enabled .Values.configuration.bootstrap.metrics -}}
{{- fail "The metrics' address stands twice: leave `metrics` out of configuration.bootstrap." -}}
{{- end -}}
{{- range .Values.rbac.extraReadRules -}}
{{- range .verbs -}}{{- if not (has . (list "get" "list" "watch")) -}}{{- fail (printf "rbac.extraReadRules: the verb %s is not for reading." .) -}}{{- end -}}{{- end -}}
{{- range .resources -}}{{- if or (contains "secrets" .) (contains "*" .) -}}{{- fail (printf "rbac.extraReadRules: %s would show Secrets, or may." .) -}}{{- end -}}{{- end -}}
{{- end -}}
{{- end -}}
