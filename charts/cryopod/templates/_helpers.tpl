{{- define "cryopod.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "cryopod.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "cryopod.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "cryopod.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "cryopod.selector" -}}
app.kubernetes.io/name: {{ include "cryopod.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "cryopod.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "cryopod.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "cryopod.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (printf "%s-agent" (include "cryopod.fullname" .)) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is needed where serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "cryopod.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{/* Names of our handlers, with commas. */}}
{{- define "cryopod.handlers" -}}
{{- $names := list -}}
{{- range .Values.runtimeClasses -}}{{- $names = append $names .name -}}{{- end -}}
{{- join "," $names -}}
{{- end -}}

{{/* Arguments of `cryopod-agent host`: from the container into the host's mount namespace. */}}
{{- define "cryopod.enterHost" -}}
- host
{{- if .Values.install.binaries }}
- --bin-dir={{ .Values.install.binDir }}
- --lib-dir={{ .Values.install.libDir }}
{{- else }}
- --installed
{{- end }}
{{- end -}}

{{/* What every container that works on the node needs. Privileged, since it enters the host's mount namespace
(CAP_SYS_ADMIN, CAP_SYS_CHROOT, CAP_SYS_PTRACE) and then opens /dev/zfs, which a container's device filter refuses. */}}
{{- define "cryopod.nodeSecurity" -}}
privileged: true
readOnlyRootFilesystem: true
{{- end -}}

{{/* Containers that only talk to the API server. */}}
{{- define "cryopod.plainSecurity" -}}
allowPrivilegeEscalation: false
capabilities: { drop: [ALL] }
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 65534
runAsGroup: 65534
seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{- define "cryopod.nodeEnv" -}}
- name: NODE_NAME
  valueFrom: { fieldRef: { fieldPath: spec.nodeName } }
- name: POD_IP
  valueFrom: { fieldRef: { fieldPath: status.podIP } }
- name: POD_NAMESPACE
  valueFrom: { fieldRef: { fieldPath: metadata.namespace } }
- name: CRYOPOD_LOG
  value: {{ .Values.agent.log | quote }}
{{- end -}}
