from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ("accounts", "0004_contacts"),
    ]

    operations = [
        migrations.AddField(
            model_name="tailnet",
            name="flow_logging",
            field=models.BooleanField(default=False),
        ),
    ]
