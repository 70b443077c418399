import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0003_audit_by_target"),
        ("nodes", "0010_reported_columns"),
    ]

    operations = [
        migrations.AddField(
            model_name="node",
            name="preapproved_routes",
            field=models.JSONField(blank=True, default=list),
        ),
        migrations.CreateModel(
            name="PostureAttribute",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("key", models.CharField(max_length=50)),
                ("folded", models.CharField(max_length=50)),
                ("kind", models.CharField(max_length=10)),
                ("value", models.JSONField()),
                ("expires", models.DateTimeField(blank=True, null=True)),
                (
                    "node",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="posture_attributes",
                        to="nodes.node",
                    ),
                ),
                (
                    "tailnet",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="posture_attributes",
                        to="accounts.tailnet",
                    ),
                ),
            ],
            options={
                "indexes": [models.Index(fields=["tailnet", "folded"], name="attributes_by_key")],
                "constraints": [
                    models.UniqueConstraint(fields=("node", "folded"), name="one_attribute_per_key")
                ],
            },
        ),
    ]
