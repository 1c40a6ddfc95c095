"""The site of the documentation: what MkDocs shows beside docs/*.md is made here, of what stands.

`hooks` is what MkDocs calls; `links` brings files of the repository into the site; `commands` and
`facts` write the reference of the command line, the settings, the metrics and the alerts.
"""
