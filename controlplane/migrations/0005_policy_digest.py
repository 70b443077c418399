"""The digest of each policy text, by which caches and editors know it; and what a version has restored."""

import hashlib
from typing import Any

from django.db import migrations, models


def fill(apps: Any, schema_editor: Any) -> None:
    for version in apps.get_model("controlplane", "PolicyVersion")._base_manager.all().iterator():
        version.digest = hashlib.sha256(version.text.encode()).hexdigest()
        version.save(update_fields=["digest"])


class Migration(migrations.Migration):
    dependencies = [("controlplane", "0004_flows")]

    operations = [
        migrations.AddField(
            model_name="policyversion",
            name="digest",
            field=models.CharField(max_length=64, default=""),
            preserve_default=False,
        ),
        migrations.AlterField(model_name="policyversion", name="text", field=models.TextField(blank=True)),
        migrations.AddField(
            model_name="policyversion",
            name="restored",
            field=models.PositiveIntegerField(blank=True, null=True),
        ),
        migrations.RunPython(fill, migrations.RunPython.noop),
    ]
